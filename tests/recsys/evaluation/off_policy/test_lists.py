"""Estimators per list, on simulated logs of known truth under two models of how lists are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
import pytest

from recsys.arrays import Float64s
from recsys.evaluation.off_policy.estimate import Estimate
from recsys.evaluation.off_policy.lists import Lists, cascade_doubly_robust, iips
from recsys.ranking.exploration import plackett_luce

NUM_LOGS, NUM_LISTS, NUM_USERS, NUM_CONTEXTS, NUM_ITEMS, NUM_PLACES = 1000, 400, 200, 3, 4, 3
#: [P, K] all lists of three of four items.
LISTS_PK = np.array(list(permutations(range(NUM_ITEMS), NUM_PLACES)))


@dataclass(frozen=True)
class Policy:
    """Plackett-Luce by context X.

    Attributes:
        given_above: [X, P, K] probability of each item, given those above.
        anyhow: [X, P, K] of each item at its place.
        lists: [X, P] of the lists.
    """

    given_above: Float64s
    anyhow: Float64s
    lists: Float64s

    @staticmethod
    def of(scores_XI: Float64s) -> Policy:
        shown = np.exp(scores_XI)[:, LISTS_PK]
        left = np.exp(scores_XI).sum(axis=1)[:, None, None] - np.cumsum(shown, axis=2) + shown
        given_above = shown / left
        lists = given_above.prod(axis=2)
        same_item = LISTS_PK[:, None] == LISTS_PK[None]  # [P, P, K]
        return Policy(given_above, np.einsum("xq,pqk->xpk", lists, same_item), lists)


@dataclass(frozen=True)
class World:
    """Two policies and the click rates of each place of each list.

    Attributes:
        logged, target: policies.
        rates: [X, P, K].
        predicted, expected: [X, P, K] what cascade DR asks a model for; of a wrong one.
    """

    logged: Policy
    target: Policy
    rates: Float64s
    predicted: Float64s
    expected: Float64s

    @staticmethod
    def make(*, cascade: bool, error: float = 0.3) -> World:
        rng = np.random.default_rng(6)
        appeal = rng.uniform(0.1, 0.6, (NUM_CONTEXTS, NUM_ITEMS))
        rates = appeal[:, LISTS_PK]
        if cascade:  # who clicks mostly reads no further
            going_on = np.cumprod(1 - 0.9 * rates, axis=2)
            rates = rates * np.concatenate([np.ones_like(rates[..., :1]), going_on[..., :-1]], 2)
        else:
            rates = rates * np.array([1.0, 0.6, 0.4])
        logged, target = Policy.of(-1.5 * appeal), Policy.of(2.5 * appeal)
        tails = np.cumsum(rates[..., ::-1], axis=2)[..., ::-1]
        predicted, expected = np.empty_like(rates), np.empty_like(rates)
        for place in range(NUM_PLACES):
            for known, means in ((place, expected), (place + 1, predicted)):
                same = (LISTS_PK[:, None, :known] == LISTS_PK[None, :, :known]).all(axis=2)
                weights = same * target.lists[:, None]
                sums = (weights * tails[:, None, :, place]).sum(axis=2)
                means[..., place] = sums / weights.sum(axis=2)
        wrong = 1 + error * rng.choice([-1, 1], NUM_CONTEXTS)[:, None, None]
        return World(logged, target, rates, predicted * wrong, expected * wrong)

    @property
    def truth(self) -> float:
        return float((self.target.lists * self.rates.sum(axis=2)).sum(axis=1).mean())

    def logs(self, num_logs: int = NUM_LOGS) -> Iterator[Log]:
        """Each user asks twice, in one context."""
        rng = np.random.default_rng(7)
        cumulated = np.cumsum(self.logged.lists, axis=1)
        for _ in range(num_logs):
            users = np.arange(NUM_LISTS) % NUM_USERS
            contexts = rng.integers(NUM_CONTEXTS, size=NUM_USERS)[users]
            below = cumulated[contexts] < rng.random((NUM_LISTS, 1))
            at = (contexts, np.minimum(below.sum(axis=1), len(LISTS_PK) - 1))
            clicks = (rng.random((NUM_LISTS, NUM_PLACES)) < self.rates[at]).astype(float)
            yield Log(
                Lists(clicks, self.logged.anyhow[at], self.target.anyhow[at], users),
                Lists(clicks, self.logged.given_above[at], self.target.given_above[at], users),
                self.predicted[at],
                self.expected[at],
            )


@dataclass(frozen=True)
class Log:
    anyhow: Lists
    given_above: Lists
    predicted: Float64s
    expected: Float64s

    def cascade(self, lists: Lists | None = None) -> Estimate:
        return cascade_doubly_robust(lists or self.given_above, self.predicted, self.expected)

    def rips(self, lists: Lists | None = None) -> Estimate:
        nothing = np.zeros_like(self.predicted)
        return cascade_doubly_robust(lists or self.given_above, nothing, nothing)


def covered(world: World, found: Callable[[Log], Estimate], num_logs: int = NUM_LOGS) -> float:
    each = [found(log) for log in world.logs(num_logs)]
    return float(np.mean([one.low <= world.truth <= one.high for one in each]))


def test_item_position_ips_covers_the_truth_of_its_click_model() -> None:
    world = World.make(cascade=False)
    assert 0.93 <= covered(world, lambda log: iips(log.anyhow)) <= 0.97


@pytest.mark.parametrize("cascade", [True, False])
def test_cascade_dr_covers_the_truth_of_both_click_models(cascade: bool) -> None:
    world = World.make(cascade=cascade)
    assert 0.93 <= covered(world, Log.cascade) <= 0.97


def test_item_position_ips_is_biased_where_people_stop_reading() -> None:
    world = World.make(cascade=True)
    assert covered(world, lambda log: iips(log.anyhow), 300) < 0.9
    assert covered(world, Log.rips, 300) > 0.92


def test_a_right_model_mends_wrong_propensities() -> None:
    world = World.make(cascade=True, error=0.0)
    left = 1 / np.arange(NUM_ITEMS, NUM_ITEMS - NUM_PLACES, -1)

    def even(log: Log) -> Lists:
        return replace(log.given_above, propensities=np.tile(left, (NUM_LISTS, 1)))

    assert covered(world, lambda log: log.cascade(even(log)), 300) > 0.92
    assert covered(world, lambda log: log.rips(even(log)), 300) < 0.8


def test_the_model_takes_variance_out() -> None:
    log = next(World.make(cascade=True, error=0.0).logs())
    corrected, plain = log.cascade(), log.rips()
    assert corrected.high - corrected.low < 0.9 * (plain.high - plain.low)


def test_propensities_given_those_above_are_what_the_service_logs() -> None:
    scores = np.array([0.3, -1.0, 0.8, 0.1])
    policy = Policy.of(scores[None])
    for seed in range(20):
        drawn = plackett_luce(scores, NUM_PLACES, 1.0, np.random.default_rng(seed))
        row = int(np.flatnonzero((drawn.places == LISTS_PK).all(axis=1))[0])
        assert policy.given_above[0, row] == pytest.approx(drawn.propensities)


#: Weights 2 and 1/2, then 1/2 and 4 where a third place is missing.
OUTCOMES = np.array([[1.0, 1, 0], [1, 0, np.nan]])
PROPENSITIES = np.array([[0.25, 0.5, 0.5], [0.5, 0.25, np.nan]])
TARGETS = np.array([[0.5, 0.25, 0.5], [0.25, 1, np.nan]])
BY_HAND = Lists(OUTCOMES, PROPENSITIES, TARGETS, np.array(["a", "b"]))


def test_by_hand() -> None:
    found = iips(BY_HAND)
    assert found.value == pytest.approx((2 + 0.5 + 0.5) / 2)
    assert found.overlap.largest_weight == 4
    assert found.overlap.effective_rows == pytest.approx(4.5**2 / 16.25)  # of the second place
    # Products of weights 2, 1, 1 and 1/2, 2.
    predicted, expected = np.full((2, 3), 0.5), np.full((2, 3), 0.25)
    first = (2 * 0.5 + 0.25) + (0.5 + 2 * 0.25) + (-0.5 + 0.25)
    second = (0.5 * 0.5 + 0.25) + (2 * -0.5 + 0.5 * 0.25)
    found = cascade_doubly_robust(BY_HAND, predicted, expected)
    assert found.value == pytest.approx((first + second) / 2)
    assert found.overlap.largest_weight == 2


def test_places_that_few_lists_have_do_not_spoil_the_overlap() -> None:
    log = next(World.make(cascade=True).logs()).given_above
    longer = [np.pad(each, ((0, 0), (0, 1)), constant_values=np.nan) for each in
              (log.outcomes, log.propensities, log.targets)]  # fmt: skip
    for each in longer:
        each[:5, -1] = 0.5
    assert iips(Lists(*longer, log.users)).overlap == iips(log).overlap


def test_clipping_a_product_is_told() -> None:
    nothing = np.zeros((2, 3))
    found = cascade_doubly_robust(BY_HAND, nothing, nothing, clip=1)
    assert found.value == pytest.approx((1 + 1 + 0.5) / 2)
    assert found.overlap.share_clipped == 0.5
