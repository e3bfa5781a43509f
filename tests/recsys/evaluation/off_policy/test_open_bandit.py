"""Two policies that were both run (arXiv 2008.07146): each one's click rate from the other's log.

The log tells no probabilities of Thompson sampling (BTS) for what the uniform policy showed, and
BTS learnt on during the week. What can be had is its mean policy, its shares of items by position:
their own error is not in the interval. It tells no users and no lists either, so rows count as
users, and the estimators of lists are not tried.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.errors import NotJudged
from recsys.evaluation.off_policy.estimate import Estimate
from recsys.evaluation.off_policy.items import Exposures, ips, snips
from recsys.outcomes.adapters import read_open_bandit
from recsys.schema import Col

DATA = Path(__file__).parents[5] / "shared" / "data" / "open_bandit_men"
NUM_RESAMPLES = 1000
LOGGED = {"random": 0.0046, "bts": 0.0069}


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    if not DATA.is_dir():
        pytest.skip("no public data set open_bandit_men in ../shared/data")
    return read_open_bandit(DATA)


def of_other(rows: pl.DataFrame, target: str) -> Exposures:
    """The log of the other policy, and what the target thinks of it."""
    log = rows.filter(pl.col(Col.arm) != target)
    if target == "bts":
        place = [Col.item, Col.position]
        share = pl.len() / pl.col("at_position").first()
        shares = (
            rows.filter(pl.col(Col.arm) == target)
            .with_columns(pl.len().over(Col.position).alias("at_position"))
            .group_by(place)
            .agg(share.alias("target"))
        )
        log = log.join(shares, on=place, how="left", maintain_order="left")
    else:
        log = log.with_columns(target=1 / log[Col.item].n_unique())
    return Exposures(
        log[Col.clicked].cast(pl.Float64).to_numpy(),
        log[Col.propensity].to_numpy(),
        log["target"].fill_null(0.0).to_numpy(),
        np.arange(log.height),
    )


@pytest.mark.parametrize("estimator", [ips, snips])
@pytest.mark.parametrize("target", ["random", "bts"])
def test_intervals(
    rows: pl.DataFrame, target: str, estimator: Callable[[Exposures], Estimate]
) -> None:
    """The interval holds what was logged, and in resamples the estimate of the whole log."""
    log = of_other(rows, target)
    whole = estimator(log)
    assert whole.low < LOGGED[target] < whole.high
    rng = np.random.default_rng(8)
    held = 0
    for _ in range(NUM_RESAMPLES):
        drawn = rng.integers(len(log.users), size=len(log.users))
        found = estimator(
            Exposures(log.outcomes[drawn], log.propensities[drawn], log.targets[drawn], log.users)
        )
        held += found.low <= whole.value <= found.high
    assert 0.93 <= held / NUM_RESAMPLES <= 0.97


def test_a_verdict_on_a_handful_of_clicks_is_refused(rows: pl.DataFrame) -> None:
    """Of BTS's 69 clicks few carry the weight: its probabilities go down to .000165."""
    found = ips(of_other(rows, "random"))
    assert found.overlap.largest_weight == pytest.approx(178.25, abs=0.01)
    assert found.overlap.effective_rows == pytest.approx(655.7, abs=0.1)
    with pytest.raises(NotJudged, match=r"worth 5\.1 outcomes, fewer than 10"):
        found.required()
    judged = ips(of_other(rows, "bts")).required()
    assert judged.overlap.effective_rows == pytest.approx(2869, abs=1)
