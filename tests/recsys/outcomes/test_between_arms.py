"""Arms side by side: who is the incumbent, who counts, and what blocks a verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.config import Arm, Outcomes
from recsys.evaluation.arms import compare
from recsys.evaluation.metrics.ratio import ratio
from recsys.outcomes.between_arms import compare_arms, planned_shares
from recsys.outcomes.rates import GROUP, SUMS, UNIT

SETTINGS = Outcomes(tuned_for_users=2000)


def arm_sums(arm: str, clicks: list[int], first_user: int = 0) -> pl.DataFrame:
    """A row a user: ten exposures each, and so many clicks."""
    users = [f"u{first_user + number}" for number in range(len(clicks))]
    frame = pl.DataFrame({GROUP: [arm] * len(clicks), UNIT: users, "clicks": clicks})
    zeros = [pl.lit(0.0).alias(name) for name in SUMS if name not in ("clicks", "exposures")]
    return frame.with_columns(
        pl.col("clicks").cast(pl.Float64), pl.lit(10.0).alias("exposures"), *zeros
    ).select(GROUP, UNIT, *SUMS)


def clicks(seed: int, rate: float, num_users: int) -> list[int]:
    return [int(each) for each in np.random.default_rng(seed).binomial(10, rate, num_users)]


@pytest.mark.parametrize(
    ("arms", "shares"),
    [
        ([], {}),
        ([{"name": "a"}], {"a": 1.0}),
        ([{"name": "n", "bundle": "x"}, {"name": "c", "weight": 3}], {"c": 0.75, "n": 0.25}),
        ([{"name": "n", "bundle": "x"}, {"name": "m", "bundle": "y"}], {"n": 0.5, "m": 0.5}),
        (
            [{"name": "off", "weight": 0}, {"name": "s", "shadow": True}, {"name": "a"}],
            {"a": 1.0},
        ),
    ],
)
def test_the_incumbent_answers_with_the_champion(
    arms: list[dict[str, Any]], shares: dict[str, float]
) -> None:
    found = planned_shares([Arm(**arm) for arm in arms])
    assert [*found.items()] == [*shares.items()]


def test_a_difference_is_told_with_the_users_still_needed() -> None:
    old, new = clicks(1, 0.2, 1000), clicks(2, 0.3, 1000)
    sums = pl.concat([arm_sums("old", old), arm_sums("new", new, 1000)])
    (found,) = compare_arms(sums, {"old": 0.5, "new": 0.5}, SETTINGS, {})
    assert (found["challenger"], found["incumbent"]) == ("new", "old")
    assert found["users"] == [1000, 1000] and found["users_in_several_arms"] == 0
    each = [ratio(np.array(part), np.full(1000, 10.0), np.arange(1000)) for part in (new, old)]
    slow = compare(*each, planned_share=0.5, tuned_for=2000)
    told = found["rates"]["ctr"]
    assert told["difference"] == pytest.approx(slow.difference)
    assert told["interval"] == pytest.approx([slow.low, slow.high])
    assert told["verdict"] == "higher" and told["refusals"] == []
    assert told["users_needed"] == slow.users_needed(0.05 * each[1].value) > 0
    back, enough = Outcomes(tuned_for_users=2000, smallest_effect=0.5), {"new": 0.5, "old": 0.5}
    (turned,) = compare_arms(sums, enough, back, {})
    assert turned["rates"]["ctr"]["verdict"] == "lower"
    assert turned["rates"]["ctr"]["users_needed"] == 0
    assert found["rates"]["cvr"] == {
        "difference": 0.0, "incumbent_value": 0.0, "effective_outcomes": 0.0, "interval": None,
        "verdict": None, "users_needed": None,
        "refusals": ["one arm is worth 0.0 outcomes, fewer than 10"],
    }  # fmt: skip


def test_all_users_are_split_and_few_are_few() -> None:
    """Who tells a dwell time is no sample ratio: 40 and 2 do. Two of many users are two."""
    sums = pl.concat([arm_sums("old", [0] * 900), arm_sums("new", [0] * 900, 900)])
    number = pl.int_range(pl.len()).over(GROUP)
    dwells = number < pl.when(pl.col(GROUP) == "old").then(40).otherwise(2)
    sums = sums.with_columns(
        dwells.cast(pl.Float64).alias("dwells"), (dwells * (number + 1.0)).alias("dwell_ms")
    )
    (found,) = compare_arms(sums, {"old": 0.5, "new": 0.5}, SETTINGS, {})
    told = found["rates"]["mean_dwell_ms"]
    assert found["mismatch_p"] == 1 and told["difference"] == pytest.approx(1.5 - 20.5)
    assert told["effective_outcomes"] == 2 and told["interval"] is told["verdict"] is None
    assert told["refusals"] == ["one arm is worth 2.0 outcomes, fewer than 10"]


@pytest.mark.parametrize("num_new", [0, 800])
def test_a_wrong_split_blocks_every_verdict(num_new: int) -> None:
    """Also where an arm answers nobody at all."""
    sums = pl.concat(
        [arm_sums("old", clicks(1, 0.2, 1000)), arm_sums("new", clicks(2, 0.3, num_new), 1000)]
    )
    (found,) = compare_arms(sums, {"old": 0.5, "new": 0.5}, SETTINGS, {})
    assert found["mismatch_p"] < 0.001
    for rate in found["rates"].values():
        assert "sample-ratio mismatch" in rate["refusals"][0]
        assert rate["interval"] is rate["verdict"] is rate["users_needed"] is None
    (found,) = compare_arms(sums, {"old": 5, "new": 4}, SETTINGS, {})
    assert (found["rates"]["ctr"]["verdict"] == "higher") == (num_new > 0)


def test_who_was_in_two_arms_counts_in_neither() -> None:
    """One of them fails for some users, and the other answers: the split tells."""
    old, new = arm_sums("old", clicks(1, 0.2, 500)), arm_sums("new", clicks(2, 0.2, 500), 500)
    fallen_back = arm_sums("old", [10] * 200, 500)
    stranger = arm_sums("gone", [10] * 500)
    sums = pl.concat([old, new, fallen_back, stranger])
    (found,) = compare_arms(sums, {"old": 0.5, "new": 0.5}, SETTINGS, {})
    assert found["users"] == [300, 500] and found["users_in_several_arms"] == 200
    assert found["mismatch_p"] < 0.001
