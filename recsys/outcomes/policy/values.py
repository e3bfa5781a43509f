"""Judged lists -> estimates of what the policies would have earned, as plain data.

Legend: L lists, K places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.arrays import Float64s
from recsys.evaluation.off_policy.estimate import Estimate, Overlap, estimate
from recsys.evaluation.off_policy.items import (
    Exposures,
    doubly_robust,
    ips,
    snips,
    switch_doubly_robust,
)
from recsys.evaluation.off_policy.lists import Lists, cascade_doubly_robust, cascade_values
from recsys.outcomes.policy.judging import BELOW, EXPECTED, PREDICTED, TARGET, column
from recsys.outcomes.policy.logged import OUTCOMES
from recsys.outcomes.rates import bounds, known
from recsys.schema import Col

#: The estimator whose answer counts.
DEFAULT: Final = "cascade_doubly_robust"
#: Weights above which `switch_doubly_robust` takes the prediction alone.
SWITCH_ABOVE: Final = 10.0


@dataclass(frozen=True)
class Value:
    """What a policy is worth by an outcome, beside what it is compared with.

    Attributes:
        value: of the policy, per list.
        difference: to the other, list by list; nothing may rest on it where either has refusals.
        beside: the other's value.
        refusals: why no verdict may rest on the difference.
    """

    value: Estimate
    difference: Estimate
    beside: float
    refusals: list[str]


def over_logged(judged: pl.DataFrame, name: str, outcome: str, confidence: float = 0.95) -> Value:
    """A policy beside those that the lists were drawn by.

    Args:
        judged: rows of `Judging`, of one list or more.
        name: of the policy.
        outcome: of `OUTCOMES`.
        confidence: of the intervals.
    """
    read = _read(judged, name, outcome)
    value = cascade_doubly_robust(*read.cascade, confidence=confidence)
    own = np.nansum(read.lists.outcomes, axis=1)
    difference = _difference(read, own, confidence)
    return Value(value, difference, float(own.mean()), value.refusals)


def over_other(
    judged: pl.DataFrame, name: str, other: str, outcome: str, confidence: float = 0.95
) -> Value:
    """A policy beside another one that has judged the same lists; see `over_logged`."""
    ours, theirs = (_read(judged, each, outcome) for each in (name, other))
    values = [
        cascade_doubly_robust(*each.cascade, confidence=confidence) for each in (ours, theirs)
    ]
    difference = _difference(ours, cascade_values(*theirs.cascade)[0], confidence)
    refusals = [f"{each}: {why}" for each, value in zip((name, other), values, strict=True)
                for why in value.refusals]  # fmt: skip
    return Value(values[0], difference, values[1].value, refusals)


def as_json(judged: pl.DataFrame, name: str, confidence: float = 0.95) -> dict[str, Any]:
    """Each outcome's estimates of a policy; docs/formats.md lists them."""
    return {outcome: _of_outcome(judged, name, outcome, confidence) for outcome in OUTCOMES}


def _of_outcome(judged: pl.DataFrame, name: str, outcome: str, confidence: float) -> dict[str, Any]:
    found, read = over_logged(judged, name, outcome, confidence), _read(judged, name, outcome)
    lists, zeros = read.lists, np.zeros_like(read.predicted)
    plain = cascade_doubly_robust(lists, zeros, zeros, confidence=confidence)
    # Of the first place what a propensity is given the items above is what it is anyhow.
    first = Exposures(
        lists.outcomes[:, 0], lists.propensities[:, 0], lists.targets[:, 0], lists.users
    )
    model = read.predicted[:, 0], read.expected[:, 0]
    switched = switch_doubly_robust(first, *model, switch_above=SWITCH_ABOVE, confidence=confidence)
    return {
        "logged": _told(_logged(np.nansum(lists.outcomes, axis=1), lists.users, confidence)),
        DEFAULT: _told(found.value),
        "difference": _told(found.difference) | {"refusals": found.refusals},
        "rips": _told(plain),
        "first_place": {
            "logged": _told(_logged(first.outcomes, lists.users, confidence)),
            "ips": _told(ips(first, confidence=confidence)),
            "snips": _told(snips(first, confidence=confidence)),
            "doubly_robust": _told(doubly_robust(first, *model, confidence=confidence)),
            "switch_doubly_robust": _told(switched),
        },
    }


@dataclass(frozen=True)
class _Read:
    """What a policy says of the lists, by one outcome: [L, K] each."""

    lists: Lists
    predicted: Float64s
    expected: Float64s
    below: Float64s

    @property
    def cascade(self) -> tuple[Lists, Float64s, Float64s]:
        """The lists and the predictions as cascade DR takes them: down to the last place."""
        return self.lists, self.predicted + self.below, self.expected + self.below


def _read(judged: pl.DataFrame, name: str, outcome: str) -> _Read:
    places = int(judged[Col.propensity].list.len().max() or 1)  # type: ignore[arg-type]

    def padded(key: str) -> Float64s:
        wide = judged[key].list.gather(list(range(places)), null_on_oob=True)
        return wide.explode().cast(pl.Float64).to_numpy().reshape(-1, places)

    propensities, targets = padded(Col.propensity), padded(column(name, TARGET))
    users = judged[Col.user].to_numpy()
    kinds = (PREDICTED, EXPECTED, BELOW)
    predictions = (np.nan_to_num(padded(column(name, what, outcome))) for what in kinds)
    return _Read(Lists(padded(outcome), propensities, targets, users), *predictions)


def _difference(read: _Read, other: Float64s, confidence: float) -> Estimate:
    """The mean of the lists' values less the other's [L]."""
    values, overlap = cascade_values(*read.cascade)
    return estimate(values - other, np.ones_like(values), read.lists.users, overlap, confidence)


def _logged(values: NDArray[np.floating[Any]], users: NDArray[Any], confidence: float) -> Estimate:
    ones = np.ones_like(values)
    return estimate(values, ones, users, Overlap.of(ones, ones, users), confidence)


def _told(found: Estimate) -> dict[str, Any]:
    overlap = found.overlap
    return {
        "value": known(found.value),
        "interval": bounds(found.low, found.high),
        "effective_outcomes": found.effective_outcomes,
        "effective_rows": overlap.effective_rows,
        "largest_weight": overlap.largest_weight,
        "mean_weight": overlap.mean_weight,
        "share_clipped": overlap.share_clipped,
        "refusals": found.refusals,
    }
