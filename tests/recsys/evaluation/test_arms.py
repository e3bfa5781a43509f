"""Two arms: how often peeking errs, what sample size shows an effect, and the split of users."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.arrays import Float64s, Int64s
from recsys.errors import NotJudged
from recsys.evaluation.arms import MISMATCH_P, Comparison, compare, half_width, mismatch_p
from recsys.evaluation.metrics.ratio import MIN_OUTCOMES, Ratio, ratio

NUM_TESTS, USERS_PER_ARM, PLANNED = 1000, 4000, 8000


def looks(rate: float, seed: int) -> tuple[Int64s, Float64s, Float64s]:
    """One arm of 1,000 tests, looked at after each 20 users.

    Returns:
        [looks] users so far; [tests, looks] click rates so far; their standard errors.
    """
    rng = np.random.default_rng(seed)
    clicks = rng.random((NUM_TESTS, USERS_PER_ARM), dtype=np.float32) < rate
    users = np.arange(20, USERS_PER_ARM + 1, 20)
    mean = np.cumsum(clicks, axis=1)[:, users - 1] / users
    return users, mean, np.sqrt(mean * (1 - mean) / (users - 1))


@pytest.mark.parametrize("rate", [0.02, 0.3])
@pytest.mark.parametrize("tuned_for", [1000, PLANNED])
def test_peeking_all_the_time_errs_in_few_tests(rate: float, tuned_for: int) -> None:
    users, first, first_error = looks(rate, seed=1)
    _, second, second_error = looks(rate, seed=2)
    error, difference = np.hypot(first_error, second_error), abs(first - second)
    judged = np.minimum(first, second) * users >= MIN_OUTCOMES
    outside = difference > half_width(error, 2 * users, tuned_for, 0.95)
    assert (outside & judged).any(axis=1).mean() <= 0.05
    fixed = difference > 1.96 * error
    assert (fixed & judged).any(axis=1).mean() > 0.2
    # At the end alone the fixed interval errs as it says.
    assert fixed[:, -1].mean() == pytest.approx(0.05, abs=0.02)


def test_users_who_come_back_do_not_harm() -> None:
    """Some click much more than others; all come again and again, and new ones join them."""
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(200):
        tastes = rng.beta(0.5, 2, 600)
        users = (rng.random(3000) * np.linspace(100, 600, 3000)).astype(np.int64)
        clicks = (rng.random(3000) < tastes[users]).astype(float)
        found = [both_arms(clicks[:seen], users[:seen]) for seen in range(300, 3001, 300)]
        wrong += any(each.low > 0 or each.high < 0 for each in found)
    assert wrong / 200 <= 0.05


def both_arms(clicks: Float64s, users: Int64s) -> Comparison:
    """Odd users beside even ones."""
    odd, even = (
        ratio(clicks[users % 2 == arm], np.ones((users % 2 == arm).sum()), users[users % 2 == arm])
        for arm in (1, 0)
    )
    return compare(odd, even, planned_share=0.5, tuned_for=600)


def arm(rate: float, num_users: int, seed: int) -> Ratio:
    clicks = (np.random.default_rng(seed).random(num_users) < rate).astype(float)
    return ratio(clicks, np.ones(num_users), np.arange(num_users))


def test_by_hand() -> None:
    found = compare(
        Ratio(0.3, 0.03, 0.0, 500), Ratio(0.2, 0.04, 0.0, 500), planned_share=0.5, tuned_for=1000
    )
    assert found.difference == pytest.approx(0.1) and found.error == pytest.approx(0.05)
    # n rho^2 = -2 ln .05 + ln(1 - 2 ln .05) = 7.9367; 2 ln(sqrt(8.9367) / .05) = 8.1816
    width = 0.05 * np.sqrt(8.9367 / 7.9367 * 8.1816)
    assert (found.low, found.high) == pytest.approx((0.1 - width, 0.1 + width), abs=1e-5)
    assert found.mismatch_p == 1 and found.required() is found


def test_tuning_is_for_the_number_of_users_it_names() -> None:
    widths = [half_width(1.0, 1000, tuned, 0.95) for tuned in (100, 500, 1000, 2000, 10_000)]
    assert np.argmin(widths) == 2


def test_the_sample_size_needed_shows_the_effect() -> None:
    """Users are added as told; then four in five tests show an effect of that size or more."""
    start = compare(arm(0.1, 500, 1), arm(0.1, 500, 2), planned_share=0.5, tuned_for=PLANNED)
    needed = start.users_needed(0.03)
    per_arm = (start.num_users + needed) // 2
    # Between what a fixed test of that power takes, and five times that.
    fixed = 2 * 0.1 * 0.9 * (1.96 + 0.84) ** 2 / 0.03**2
    assert fixed < per_arm < 5 * fixed
    shown = [
        compare(
            arm(0.115, per_arm, 2 * test), arm(0.085, per_arm, 2 * test + 1),
            planned_share=0.5, tuned_for=PLANNED,
        ).low > 0
        for test in range(10, 310)
    ]  # fmt: skip
    assert np.mean(shown) == pytest.approx(0.8, abs=0.07)
    assert start.users_needed(-0.03) == needed
    assert start.users_needed(0.03, power=0.5) < needed < start.users_needed(0.03, power=0.95)
    enough = compare(arm(0.1, 50_000, 1), arm(0.1, 50_000, 2), planned_share=0.5, tuned_for=PLANNED)
    assert enough.users_needed(0.03) == 0


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.1, 0.9], [0.2, 0.3, 0.5]])
def test_the_size_of_the_mismatch_test(shares: list[float]) -> None:
    counts = np.random.default_rng(4).multinomial(5000, shares, size=20_000)
    p = np.array([mismatch_p(each, shares) for each in counts.tolist()])
    for level in (0.05, 0.01):
        assert (p < level).mean() == pytest.approx(level, abs=0.006)
    assert (p < MISMATCH_P).mean() < 0.002


def test_a_mismatch_blocks_the_verdict() -> None:
    found = compared(arm(0.3, 48_000, 1), arm(0.1, 50_000, 2))
    assert found.low > 0.1
    with pytest.raises(NotJudged, match=r"sample-ratio mismatch, p = 2e-10"):
        found.required()
    # 96 to 100 was planned.
    planned = compare(
        arm(0.3, 48_000, 1), arm(0.1, 50_000, 2), planned_share=48 / 98, tuned_for=PLANNED
    )
    assert planned.required().low > 0.1


def test_few_outcomes_block_the_verdict() -> None:
    with pytest.raises(NotJudged, match=r"one arm is worth 0\.0 outcomes, fewer than 10"):
        compared(arm(0.3, 500, 1), arm(0.0, 500, 2)).required()


def test_no_users_at_all() -> None:
    nobody = ratio(np.zeros(0), np.zeros(0), np.zeros(0))
    assert mismatch_p([0, 0], [0.5, 0.5]) == 1
    assert compared(nobody, nobody).refusals


def compared(challenger: Ratio, incumbent: Ratio) -> Comparison:
    return compare(challenger, incumbent, planned_share=0.5, tuned_for=PLANNED)
