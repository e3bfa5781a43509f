"""When an estimate is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys.errors import DataError, NotJudged
from recsys.evaluation.off_policy.estimate import Estimate
from recsys.evaluation.off_policy.items import Exposures, ips


def shown(num: int, *, propensity: float = 0.5, target: float = 0.5) -> Exposures:
    """Exposures of as many users, every fourth clicked."""
    return Exposures(
        (np.arange(num) % 4 == 0).astype(float),
        np.full(num, propensity),
        np.full(num, target),
        np.arange(num),
    )


def test_enough_is_judged() -> None:
    found = ips(shown(400))
    assert found.refusals == [] and found.required() is found


def refused(found: Estimate, told: str) -> None:
    with pytest.raises(NotJudged, match=told):
        found.required()


def test_too_few_rows() -> None:
    refused(ips(shown(99)), "effective sample size is 99.0, below 100")


def test_one_weight_that_is_most_of_the_log() -> None:
    log = shown(400)
    log.propensities[0] = 0.001
    refused(ips(log), r"effective sample size is 3\.2")
    # Clipped, the log is judged, and it is told how much was.
    clipped = ips(log, clip=2)
    assert clipped.overlap.effective_rows > 390 and clipped.overlap.share_clipped == 1 / 400
    assert clipped.overlap.largest_weight == 500


def test_too_few_outcomes() -> None:
    log = shown(4000)
    few = replace(log, outcomes=log.outcomes * (np.arange(4000) < 36))
    refused(ips(few), r"worth 9\.\d outcomes, fewer than 10")
    refused(ips(replace(log, outcomes=np.zeros(4000))), r"worth 0.0 outcomes")


def test_what_was_never_shown_cannot_be_judged() -> None:
    """The target shows half of the time what the logged policy never did: its weights are 1/2."""
    refused(ips(shown(4000, propensity=1.0, target=0.5)), "mean weight is 0.500, inf")
    rng = np.random.default_rng(1)
    log = shown(4000)
    uneven = replace(log, targets=rng.choice([0.2, 0.7], 4000))
    refused(ips(uneven), "mean weight is 0.9.*the log lacks what the target shows")


def test_float32_is_no_gap() -> None:
    log = shown(400, propensity=1 / 34, target=1 / 34)
    rounded = replace(log, propensities=log.propensities.astype(np.float32))
    assert ips(rounded).refusals == []


@pytest.mark.parametrize("propensity", [np.nan, 0.0, -0.1, 1.5])
def test_an_unknown_propensity_is_an_error(propensity: float) -> None:
    log = shown(4)
    log.propensities[2] = propensity
    with pytest.raises(DataError, match=r"\[propensity\] 1 of 4 exposures have no propensity"):
        ips(log)
