"""Estimators per exposure, on small tables by hand and on simulated logs of known truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from recsys.arrays import Float64s
from recsys.evaluation.off_policy.estimate import Estimate
from recsys.evaluation.off_policy.items import (
    Exposures,
    doubly_robust,
    ips,
    snips,
    switch_doubly_robust,
)

NUM_LOGS, NUM_USERS, NUM_CONTEXTS, NUM_ITEMS = 1000, 150, 4, 6
#: Switch-DR trusts the model above it.
SWITCH_ABOVE = 2.0


@dataclass(frozen=True)
class World:
    """Users of several kinds, two policies, true click rates, and a model that errs.

    The model is right where weights are above `SWITCH_ABOVE`: there switch-DR has nothing else.
    """

    logged: Float64s
    target: Float64s
    rates: Float64s
    model: Float64s

    @staticmethod
    def make() -> World:
        rng = np.random.default_rng(2)
        shape = (NUM_CONTEXTS, NUM_ITEMS)
        appeal = rng.uniform(-1, 1, shape)
        logged, target = (softmax(way * appeal + rng.normal(0, 0.3, shape)) for way in (-0.7, 0.7))
        rates = rng.uniform(0.25, 0.35, NUM_CONTEXTS)[:, None] + 0.14 * appeal
        wrong = rng.normal(0, 0.1, shape) * (target / logged <= SWITCH_ABOVE)
        return World(logged, target, rates, rates + wrong)

    @property
    def truth(self) -> float:
        return float((self.target * self.rates).sum(axis=1).mean())

    def logs(self, num_logs: int = NUM_LOGS) -> Iterator[Log]:
        """Users come 1 to 11 times; one user's kind and mood are the same each time."""
        rng = np.random.default_rng(3)
        for _ in range(num_logs):
            users = np.repeat(np.arange(NUM_USERS), rng.integers(1, 12, NUM_USERS))
            contexts = rng.integers(NUM_CONTEXTS, size=NUM_USERS)[users]
            moods = rng.choice([-0.1, 0.1], NUM_USERS)[users]
            below = np.cumsum(self.logged, axis=1)[contexts] < rng.random((len(users), 1))
            items = np.minimum(below.sum(axis=1), NUM_ITEMS - 1)
            clicks = rng.random(len(users)) < self.rates[contexts, items] + moods
            at = (contexts, items)
            shown = Exposures(clicks.astype(float), self.logged[at], self.target[at], users)
            expected = (self.target * self.model).sum(axis=1)[contexts]
            yield Log(shown, self.model[at], expected)


@dataclass(frozen=True)
class Log:
    shown: Exposures
    predicted: Float64s
    expected: Float64s


def softmax(logits: Float64s) -> Float64s:
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


ESTIMATORS: dict[str, Callable[[Log], Estimate]] = {
    "ips": lambda log: ips(log.shown),
    "snips": lambda log: snips(log.shown),
    "doubly_robust": lambda log: doubly_robust(log.shown, log.predicted, log.expected),
    "switch_doubly_robust": lambda log: switch_doubly_robust(
        log.shown, log.predicted, log.expected, switch_above=SWITCH_ABOVE
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_intervals_cover_the_truth(name: str) -> None:
    world = World.make()
    found = [ESTIMATORS[name](log) for log in world.logs()]
    assert 0.93 <= covered(found, world.truth) <= 0.97
    assert sum(bool(each.refusals) for each in found) <= 0.01 * NUM_LOGS


def test_the_policies_differ_and_users_matter() -> None:
    """The log's own click rate is another one, and rows taken for users give narrow intervals."""
    world = World.make()
    logs = [log.shown for log in world.logs(400)]
    own = [ips(replace(log, targets=log.propensities)) for log in logs]
    assert covered(own, world.truth) < 0.6
    single = [ips(replace(log, users=np.arange(len(log.users)))) for log in logs]
    assert covered(single, world.truth) < 0.92


def test_a_good_model_narrows_the_interval() -> None:
    right = replace(World.make(), model=World.make().rates)
    log = next(right.logs())
    corrected, weighted = ESTIMATORS["doubly_robust"](log), ESTIMATORS["ips"](log)
    assert corrected.high - corrected.low < 0.9 * (weighted.high - weighted.low)


def test_a_right_model_mends_wrong_propensities() -> None:
    """Doubly robust: the other half of the promise, which IPS does not give."""
    world = replace(World.make(), model=World.make().rates)
    found, without = [], []
    for log in world.logs(400):
        even = replace(log.shown, propensities=np.full(len(log.predicted), 1 / NUM_ITEMS))
        found.append(doubly_robust(even, log.predicted, log.expected))
        without.append(ips(even))
    assert covered(found, world.truth) >= 0.92
    assert covered(without, world.truth) < 0.8


def covered(found: list[Estimate], truth: float) -> float:
    return float(np.mean([each.low <= truth <= each.high for each in found]))


#: Weights 2, 0.5, 4 and 0.
SHOWN = Exposures(
    np.array([1.0, 1, 0, 1]),
    np.array([0.25, 0.5, 0.2, 0.5]),
    np.array([0.5, 0.25, 0.8, 0.0]),
    np.arange(4),
)
PREDICTED, EXPECTED = np.array([0.5, 0.5, 0.25, 1]), np.array([0.5, 0.25, 0.5, 0.75])


@pytest.mark.parametrize(
    ("found", "value", "effective_rows", "share_clipped"),
    [
        (ips(SHOWN), 2.5 / 4, 6.5**2 / 20.25, 0),
        (ips(SHOWN, clip=1), 1.5 / 4, 2.5**2 / 2.25, 0.5),
        (snips(SHOWN), 2.5 / 6.5, 6.5**2 / 20.25, 0),
        (snips(SHOWN, clip=1), 1.5 / 2.5, 2.5**2 / 2.25, 0.5),
        (doubly_robust(SHOWN, PREDICTED, EXPECTED), (2 + 1 + 0.25 - 1) / 4, 6.5**2 / 20.25, 0),
        (
            switch_doubly_robust(SHOWN, PREDICTED, EXPECTED, switch_above=2),
            (2 + 1 + 0.25) / 4,
            2.5**2 / 4.25,
            0.25,
        ),
    ],
)
def test_by_hand(
    found: Estimate, value: float, effective_rows: float, share_clipped: float
) -> None:
    assert found.value == pytest.approx(value)
    assert found.overlap.effective_rows == pytest.approx(effective_rows)
    assert found.overlap.share_clipped == share_clipped
    assert (found.overlap.largest_weight, found.overlap.mean_weight) == (4, 6.5 / 4)
    assert found.num_users == 4


def test_the_logged_policys_own_value_is_the_mean() -> None:
    own = replace(SHOWN, targets=SHOWN.propensities)
    for found in (ips(own), snips(own), doubly_robust(own, PREDICTED, PREDICTED)):
        assert found.value == pytest.approx(0.75)
        assert found.overlap.effective_rows == 4 and found.overlap.gap == 0
