"""Counts by user: sums of shards, and days that differ."""

from __future__ import annotations

import json

import numpy as np
import pytest

from recsys.drift.change import change
from recsys.drift.counts import Counts
from recsys.drift.psi import psi


def rows(rng: np.random.Generator, num_users: int, shares: np.ndarray, first: int = 0) -> Counts:
    """Five rows a user on the days of `shares` [D, B]."""
    users = np.repeat(np.arange(num_users), 5) + first
    days = rng.integers(0, len(shares), len(users))
    bins = (rng.random((len(users), 1)) > shares.cumsum(axis=1)[days]).sum(axis=1)
    return Counts.of(days, np.minimum(bins, shares.shape[1] - 1), users, *shares.shape)


def test_shards_add_up_and_come_back_from_json() -> None:
    rng, shares = np.random.default_rng(0), np.full((3, 4), 0.25)
    users = rng.integers(0, 60, 500)
    days, bins = rng.integers(0, 3, 500), rng.integers(0, 4, 500)
    whole = Counts.of(days, bins, users, 3, 4)
    halves = [Counts.of(days[h], bins[h], users[h], 3, 4) for h in (users < 30, users >= 30)]
    both = Counts.from_json(json.loads(json.dumps((halves[0] + halves[1]).as_json())))
    for name in ("by_day", "products", "products_of_visits", "num_users"):
        assert np.array_equal(getattr(both, name), getattr(whole, name)), name
    assert whole.num_users == len(np.unique(users)) and shares.shape == whole.by_day.shape
    empty = Counts.of(days[:0], bins[:0], users[:0], 3, 4)
    assert empty.num_users == 0 and np.array_equal((empty + whole).products, whole.products)


@pytest.mark.parametrize(
    "wrong", [{"by_day": [[-1, 2]]}, {"products": [[1]]}, {"users": "many"}, {"by_day": [1]}]
)
def test_counts_that_are_none_are_refused(wrong: dict[str, object]) -> None:
    good = Counts.of(np.zeros(4, int), np.array([0, 1, 1, 0]), np.arange(4), 1, 2).as_json()
    with pytest.raises((ValueError, TypeError, IndexError)):
        Counts.from_json(good | wrong)


def test_a_weekend_is_no_drift() -> None:
    """Where Saturdays and Sundays are another thing, a night of them is within what days do."""
    rng, surely = np.random.default_rng(3), {"week": 0, "blind": 0}
    workday, weekend = np.array([0.5, 0.3, 0.2]), np.array([0.3, 0.4, 0.3])
    month = np.array([weekend if day % 7 > 4 else workday for day in range(28)])
    for _ in range(100):
        then, now = rows(rng, 6000, month), rows(rng, 900, weekend[None], 9000)
        few = Counts(
            then.by_day[:3] * 28 / 3, then.products, then.products_of_visits, then.num_users
        )
        surely["week"] += psi(then, now).low > 0
        surely["blind"] += psi(few, now).low > 0
    assert surely["week"] <= 5 and surely["blind"] >= 95


@pytest.mark.parametrize(("then", "now"), [(0.03, 0.03), (0.03, 0.06), (0.4, 0.3)])
def test_95_percent_of_the_intervals_of_a_change_hold_the_truth(then: float, now: float) -> None:
    """Users click as often as they like: their shares are drawn from a beta distribution."""
    rng, held = np.random.default_rng(8), 0

    def clicks(share: float, num_users: int, num_days: int) -> Counts:
        users = np.repeat(np.arange(num_users), rng.poisson(6, num_users))
        own = rng.beta(share * 8, (1 - share) * 8, num_users)
        bins = (rng.random(len(users)) < own[users]).astype(int)
        return Counts.of(rng.integers(0, num_days, len(users)), bins, users, num_days, 2)

    for _ in range(1000):
        found = change(clicks(then, 900, 28), clicks(now, 250, 1))
        held += found.low <= now - then <= found.high
    assert 0.93 <= held / 1000 <= 0.97


def test_a_change_from_nothing() -> None:
    def of(clicks: int, shown: int = 400) -> Counts:
        bins = (np.arange(shown) < clicks).astype(int)
        return Counts.of(np.zeros(shown, int), bins, np.arange(shown), 1, 2)

    assert change(of(0), of(0)).surely == 0
    assert change(of(0), of(80)).surely == float("inf")
    assert -1 < change(of(80), of(0)).surely < -0.5
