"""A ratio by user: by hand, its interval where clicks are rare, and what it is worth."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation.metrics.ratio import Ratio, ratio


def test_by_hand() -> None:
    # Of 4 clicks on 8 exposures users hold 3 of 4, 1 of 3 and 0 of 1: contributions 1, -.5, -.5.
    users = np.array(["a"] * 4 + ["b"] * 3 + ["c"])
    found = ratio(np.array([1.0, 1, 1, 0, 1, 0, 0, 0]), np.ones(8), users)
    assert (found.value, found.num_users) == (0.5, 3)
    assert found.error == pytest.approx(np.sqrt(1.5 * 3 / 2) / 8)
    assert found.skewness == pytest.approx(np.sqrt(0.5))
    assert found.effective_outcomes == 3


@pytest.mark.parametrize("users", [[1, 1, 1, 1], [1, 2, 3, 4]])
def test_without_spread_nothing_is_known(users: list[int]) -> None:
    found = ratio(np.full(4, 0.1), np.ones(4), np.array(users))
    assert found.value == pytest.approx(0.1)
    assert np.isnan(found.interval()).all()
    assert found.effective_outcomes == 0


def test_without_rows() -> None:
    found = ratio(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
    assert found.num_users == 0 and found.effective_outcomes == 0
    assert np.isnan([found.value, *found.interval()]).all()


def test_of_equal_rare_clicks_each_is_worth_one() -> None:
    clicks = np.zeros(100_000)
    clicks[:40] = 1
    assert ratio(clicks, np.ones(100_000), np.arange(100_000)).effective_outcomes == (
        pytest.approx(40, rel=0.01)
    )
    clicks[0] = 40  # one that weighs as much as all others
    assert ratio(clicks, np.ones(100_000), np.arange(100_000)).effective_outcomes < 2


def test_without_skewness_it_is_the_interval_of_student() -> None:
    low, high = Ratio(1.0, 0.1, 0.0, 21).interval(0.95)
    assert (low, high) == pytest.approx((1 - 0.2086, 1 + 0.2086), abs=1e-4)
    assert Ratio(1.0, 0.1, 1e-4, 21).interval(0.95) == pytest.approx((low, high), abs=1e-4)


def test_skewness_shifts_the_interval_towards_the_long_tail() -> None:
    low, high = Ratio(1.0, 0.1, 5.0, 400).interval()
    assert high - 1 > 1 - low > 0
    mirrored = Ratio(-1.0, 0.1, -5.0, 400).interval()
    assert mirrored == pytest.approx((-high, -low))


def test_rare_clicks_of_uneven_weight_are_covered() -> None:
    """2,000 logs with some 50 clicks: the symmetric interval lies too low, this one does not."""
    rng = np.random.default_rng(4)
    above, below, symmetric_above, symmetric_below = 0, 0, 0, 0
    for _ in range(2000):
        weights = np.exp(0.7 * rng.standard_normal(1000) - 0.245)
        found = ratio(weights * (rng.random(1000) < 0.05), np.ones(1000), np.arange(1000))
        low, high = found.interval()
        above += high < 0.05
        below += low > 0.05
        symmetric_above += found.value + 1.96 * found.error < 0.05
        symmetric_below += found.value - 1.96 * found.error > 0.05
    assert 0.93 <= 1 - (above + below) / 2000 <= 0.97
    assert above < 2 * below and symmetric_above > 5 * symmetric_below
