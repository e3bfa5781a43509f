"""What arms and logged lists say of a challenger."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from recsys.outcomes.evidence import RATE_OF, of_arms, of_lists
from recsys.outcomes.policy.judging import BELOW, EXPECTED, PREDICTED, TARGET, column
from recsys.outcomes.policy.logged import OUTCOMES
from recsys.outcomes.rates import RATES
from recsys.schema import Col


def test_each_outcome_has_a_rate() -> None:
    assert {*RATE_OF} == {*OUTCOMES} and {*RATE_OF.values()} < {*RATES}


def test_a_test_of_other_models_says_nothing() -> None:
    rate = {"difference": None, "interval": None, "incumbent_value": 0.1, "refusals": ["few"]}
    compared = {"challenger": "x", "incumbent": "y", "users": [3, 4], "rates": {"ctr": rate},
                "models": [["b"], ["a", "older"]]}  # fmt: skip
    assert of_arms({"comparisons": [compared]}, "b", "a", "clicks", 0.95) is None
    found = of_arms({"comparisons": [compared | {"models": [["b"], ["a"]]}]}, "b", "a", "clicks",
                    0.95)  # fmt: skip
    assert found is not None and found.doubts == ("few",) and found.verdict.num_users == 7
    assert math.isnan(found.verdict.low) and not found.verdict.above(-1)
    # Of an earlier release, which did not tell the models.
    del compared["models"]
    assert of_arms({"comparisons": [compared]}, "b", "a", "clicks", 0.95) is None


@pytest.mark.parametrize("target", [0.75, 0.01])
def test_lists_say_which_is_better_or_why_they_cannot(target: float) -> None:
    """Two items of a place; the first is clicked twice as often. Both are logged evenly."""
    rng = np.random.default_rng(3)
    first = rng.random(3000) < 0.5
    clicks = rng.random(3000) < np.where(first, 0.4, 0.2)
    columns = {
        Col.user: np.arange(3000) % 900, Col.propensity: [[0.5]] * 3000,
        "clicks": clicks[:, None].astype(float).tolist(),
    }  # fmt: skip
    for name, chance in (("new", target), ("old", 0.5)):
        targets = np.where(first, chance, 1 - chance)[:, None]
        columns[column(name, TARGET)] = targets.tolist()
        for what in (PREDICTED, EXPECTED, BELOW):
            columns[column(name, what, "clicks")] = [[0.0]] * 3000
    found = of_lists(pl.DataFrame(columns), "new", "old", "clicks", 0.95)
    assert found.source == "policy value of clicks on 3,000 logged lists" and not found.doubts
    truth = (target - 0.5) * 0.2
    assert found.verdict.low < truth < found.verdict.high
    assert (found.verdict.low > 0) == (target > 0.5) and found.champion == pytest.approx(
        0.3, rel=0.1
    )
