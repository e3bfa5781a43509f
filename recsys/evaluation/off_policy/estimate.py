"""An estimate of a policy's value, how much of the log bears on it, and when it is refused.

The weight of an exposure is the target policy's probability of showing it by the logged one's.

Legend: N rows (exposures or lists).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Float64s
from recsys.errors import DataError, NotJudged
from recsys.evaluation.metrics.ratio import MIN_OUTCOMES, ratio
from recsys.schema import Col

#: Rows of the target policy itself that the log must be worth. A standard error that comes from
#: 100 rows is itself known to 1 / sqrt(2 * 100) = 7 %.
MIN_ROWS = 100
#: Standard errors by which the mean weight may miss 1.
MAX_GAP = 4.0


@dataclass(frozen=True)
class Overlap:
    """How well the logged policy covers the target policy; of a list, at its worst place.

    Attributes:
        effective_rows: effective sample size, (sum of weights)^2 / sum of squared weights: rows
            shown by the target policy itself that would tell as much. Source: Kong 1992; Owen,
            Monte Carlo theory, methods and examples, 2013, section 9.3.
        largest_weight: before clipping.
        share_clipped: rows whose weight was above the limit.
        mean_weight: before clipping. It should be 1: less tells that the target shows what the
            logged policy never did, or that propensities are wrong (Owen, section 9.3).
        gap: how far it lies from 1, in its standard errors by user.
    """

    effective_rows: float
    largest_weight: float
    share_clipped: float
    mean_weight: float
    gap: float

    @staticmethod
    def of(
        weights: NDArray[np.floating[Any]],
        used: NDArray[np.floating[Any]],
        users: NDArray[Any],
    ) -> Overlap:
        """The overlap of single rows.

        Args:
            weights: [N].
            used: [N] the same after clipping.
            users: [N].
        """
        mean = ratio(weights, np.ones_like(weights), users)
        # Propensities are stored as float32.
        off = max(0.0, abs(mean.value - 1) - 1e-6)
        squares = np.square(used).sum()
        return Overlap(
            float(used.sum() ** 2 / squares) if squares else 0.0,
            float(weights.max(initial=0)),
            float((used < weights).mean()) if len(weights) else 0.0,
            mean.value,
            off / mean.error if off and mean.error > 0 else np.inf if off else 0.0,
        )

    @staticmethod
    def worst(places: Sequence[Overlap]) -> Overlap:
        """The least favourable of each figure."""
        off = max(places, key=lambda place: place.gap)
        return Overlap(
            min(place.effective_rows for place in places),
            max(place.largest_weight for place in places),
            max(place.share_clipped for place in places),
            off.mean_weight,
            off.gap,
        )


@dataclass(frozen=True)
class Estimate:
    """The value of a target policy, per exposure or per list.

    Attributes:
        value: e.g. clicks per exposure.
        low, high: bounds of the interval by user, corrected for skewness; NaN if unknown.
        num_users: users with a row.
        effective_outcomes: see `Ratio.effective_outcomes`.
        overlap: with the logged policy.
    """

    value: float
    low: float
    high: float
    num_users: int
    effective_outcomes: float
    overlap: Overlap

    @property
    def refusals(self) -> list[str]:
        """Why no verdict may rest on it; empty: nothing speaks against it."""
        overlap, found = self.overlap, []
        if not overlap.effective_rows >= MIN_ROWS:
            found.append(
                f"the effective sample size is {overlap.effective_rows:.1f}, below {MIN_ROWS}"
            )
        if not overlap.gap <= MAX_GAP:
            found.append(
                f"the mean weight is {overlap.mean_weight:.3f}, {overlap.gap:.1f} standard errors "
                "from 1: the log lacks what the target shows, or its propensities are wrong"
            )
        if not self.effective_outcomes >= MIN_OUTCOMES:
            found.append(
                f"the log is worth {self.effective_outcomes:.1f} outcomes, fewer than "
                f"{MIN_OUTCOMES}"
            )
        return found

    def required(self) -> Estimate:
        """The same, if a verdict may rest on it.

        Raises:
            NotJudged: there are `refusals`.
        """
        if self.refusals:
            raise NotJudged(
                "; ".join(self.refusals),
                fix="log more exposures, of a policy that explores what the target shows",
            )
        return self


def weights_of(
    targets: NDArray[np.floating[Any]], propensities: NDArray[np.floating[Any]]
) -> Float64s:
    """[...] the weights of exposures.

    Args:
        targets: [...] the target policy's probability of what was shown; in [0, 1].
        propensities: [...] the logged policy's.

    Raises:
        DataError: a propensity is unknown or not in (0, 1].
    """
    wrong = ~((propensities > 0) & (propensities <= 1))
    if wrong.any():
        raise DataError(
            f"{wrong.sum():,} of {wrong.size:,} exposures have no propensity in (0, 1]",
            field=Col.propensity,
            value=float(propensities[wrong][0]),
            fix="leave out lists without propensities, such as those that the shop logged itself",
        )
    assert ((targets >= 0) & (targets <= 1)).all(), "targets are probabilities"
    return np.asarray(targets, dtype=np.float64) / np.asarray(propensities, dtype=np.float64)


def estimate(
    numerator: NDArray[np.floating[Any]],
    denominator: NDArray[np.floating[Any]],
    users: NDArray[Any],
    overlap: Overlap,
    confidence: float,
) -> Estimate:
    """The estimate that is a ratio of sums over rows; see `ratio`.

    Args:
        numerator: [N].
        denominator: [N].
        users: [N].
        overlap: of the rows.
        confidence: of the interval.
    """
    found = ratio(numerator, denominator, users)
    low, high = found.interval(confidence)
    return Estimate(found.value, low, high, found.num_users, found.effective_outcomes, overlap)
