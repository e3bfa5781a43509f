"""The PSI's interval: how often it holds the truth, and what bins it is made of."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.drift.counts import Counts
from recsys.drift.psi import common_bins, psi

EVEN = np.full(10, 0.1)
TILTED = np.array([0.05, 0.06, 0.08, 0.09, 0.1, 0.1, 0.12, 0.12, 0.13, 0.15])


def sample(
    shares: np.ndarray, num_users: int, num_days: int, rng: np.random.Generator, taste: float
) -> Counts:
    """About eight rows a user; the smaller `taste`, the more alike are those of one."""
    rows = rng.poisson(rng.gamma(2, 4, num_users))
    users = np.repeat(np.arange(num_users), rows)
    own = rng.dirichlet(shares * taste, num_users).cumsum(axis=1)
    bins = np.minimum((rng.random((len(users), 1)) > own[users]).sum(axis=1), len(shares) - 1)
    return Counts.of(rng.integers(0, num_days, len(users)), bins, users, num_days, len(shares))


def counts(values: list[int], users_each: int = 1) -> Counts:
    """Rows of one day, each of a user or of a few."""
    bins = np.repeat(np.arange(len(values)), values)
    return Counts.of(np.zeros_like(bins), bins, np.arange(len(bins)) // users_each, 1, len(values))


@pytest.mark.parametrize("taste", [1000.0, 3.0], ids=["alike", "each their own"])
@pytest.mark.parametrize("now", [EVEN, TILTED], ids=["no drift", "drift"])
def test_95_percent_of_the_intervals_hold_the_truth(taste: float, now: np.ndarray) -> None:
    """At 0 by one tail alone, for no index is below it: 97.5 %."""
    rng = np.random.default_rng(5)
    true, held, above = float(((now - EVEN) * np.log(now / EVEN)).sum()), 0, 0
    for _ in range(1000):
        found = psi(sample(EVEN, 400, 28, rng, taste), sample(now, 120, 1, rng, taste))
        held += found.low <= true <= found.high
        above += found.low > 0
    assert 0.93 <= held / 1000 <= (0.97 if true else 0.99)
    assert above / 1000 < 0.04 if not true else above / 1000 > 0.5


def test_rows_of_one_user_are_not_independent() -> None:
    """Taken for independent, stable samples seem to drift."""
    rng, false = np.random.default_rng(1), [0, 0]
    for _ in range(200):
        pair = sample(EVEN, 400, 28, rng, 3), sample(EVEN, 120, 1, rng, 3)
        for number, each in enumerate(
            (pair, [counts(c.values.astype(int).tolist()) for c in pair])
        ):
            false[number] += psi(*each).low > 0
    assert false[0] <= 10 < 100 < false[1]


def test_the_figure_is_the_textbook_s_and_chance_is_the_chi_square_s_mean() -> None:
    """(B - 1)(1/n + 1/m), Yurdakul 2018."""
    n, m = 100_000, 50_000
    found = psi(counts([n // 10] * 10), counts((TILTED * m).astype(int).tolist()))
    assert found.value == pytest.approx(((TILTED - EVEN) * np.log(TILTED / EVEN)).sum(), rel=1e-3)
    even = psi(counts([n // 10] * 10), counts([m // 10] * 10))
    assert even.value == pytest.approx(0, abs=1e-9)
    assert even.by_chance == pytest.approx(9 * (1 / n + 1 / m), rel=0.01)
    assert even.low == 0 and found.low < found.value < found.high


def test_a_value_of_one_side_alone_is_finite_and_found() -> None:
    for then, now in (([500, 500, 0], [300, 300, 400]), ([300, 300, 400], [500, 500, 0])):
        found = psi(counts(then), counts(now))
        assert np.isfinite(found.high) and found.low > 0.25


def test_rare_values_are_one_bin() -> None:
    then, now = counts([500, 2, 480, 1, 0, 3]), counts([500, 1, 480, 2, 4, 0])
    groups = common_bins(then, now)
    assert groups[1] == groups[3] == groups[4] == groups[5] and len(np.unique(groups)) == 3
    assert psi(then, now).low == 0
    alone = psi(counts([0, 900, 0]), counts([0, 30, 0]))
    assert (alone.value, alone.low, alone.high) == (0, 0, 0)


def test_users_who_are_all_alike_leave_no_doubt() -> None:
    same = Counts.of(np.zeros(200, int), np.tile([0, 1], 100), np.repeat(np.arange(100), 2), 1, 2)
    assert psi(same, same).high == pytest.approx(0, abs=1e-6)
