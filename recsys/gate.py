"""The gate in front of the registry: is a challenger better than the incumbent, or only lucky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.metrics.intervals import bootstrap_mean


@dataclass(frozen=True)
class Verdict:
    """The mean difference, challenger less incumbent, and its interval.

    Attributes:
        difference: mean over the rows that count.
        low, high: bounds of the interval; NaN where fewer than two users have a row.
    """

    difference: float
    low: float
    high: float

    @property
    def better(self) -> bool:
        """Whether the whole interval lies above zero; unknown bounds are not."""
        return self.low > 0


def beats(
    challenger: NDArray[np.floating[Any]],
    incumbent: NDArray[np.floating[Any]],
    groups: NDArray[Any],
    confidence: float,
    num_bootstrap: int,
    seed: int,
) -> Verdict:
    """Compare two models on the same rows: paired differences, users resampled.

    Pairing takes out what makes a row hard for both, so a small real gain shows on few rows;
    resampling users instead of rows keeps one busy user from deciding (see
    `metrics.intervals`).

    Args:
        challenger: [R] the metric of each row, higher is better.
        incumbent: [R] likewise; a row that is NaN in both does not count.
        groups: [R] int or str, the user of each row.
        confidence: share of resampled differences between the bounds.
        num_bootstrap: resamples.
        seed: of the resamples.

    Raises:
        DataError: the two were not evaluated on the same rows.
    """
    same = challenger.shape == incumbent.shape == groups.shape
    if not same or not np.array_equal(np.isnan(challenger), np.isnan(incumbent)):
        raise DataError(
            f"challenger ({_num_rows(challenger)}) and incumbent ({_num_rows(incumbent)}) "
            f"were not evaluated on the same rows ({groups.size} users of rows given)",
            mend="evaluate both on the same test window with the same seed",
        )
    interval = bootstrap_mean(
        challenger - incumbent,
        groups,
        num_bootstrap=num_bootstrap,
        confidence=confidence,
        seed=seed,
    )
    return Verdict(interval.mean, interval.low, interval.high)


def _num_rows(values: NDArray[np.floating[Any]]) -> str:
    return f"{np.count_nonzero(~np.isnan(values))} of {values.size} rows count"
