"""Calibration: of the rows predicted at 30 %, 30 % should have label 1.

Legend: N labelled rows, B bins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Int64s


def ece_equal_mass(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[Any], num_bins: int = 15
) -> float:
    """Expected calibration error over bins of equally many rows, by rising probability.

    The mean over rows of |share of label 1 in the row's bin - mean probability in it|. Bins differ
    by at most one row; rows of equal probability are split in the order given.

    Args:
        probabilities: [N] of label 1.
        labels: [N] 0 or 1.
        num_bins: B; rows fewer than that are a bin each.

    Returns:
        NaN if there is no row.

    Source: Naeini et al. 2015; the equal-mass bins of Nixon et al. 2019.
    """
    order = np.argsort(probabilities, kind="stable")
    size, more = divmod(len(order), num_bins)
    sizes = np.full(num_bins, size)
    sizes[:more] += 1
    bins = np.empty(len(order), dtype=np.int64)
    bins[order] = np.repeat(np.arange(num_bins), sizes)
    return _gap(probabilities, labels, bins, num_bins)


def ece_equal_width(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[Any], num_bins: int = 10
) -> float:
    """Expected calibration error over bins [0, 1/B), ... [1 - 1/B, 1]; see `ece_equal_mass`.

    Source: Guo et al. 2017.
    """
    bins = np.minimum((probabilities * num_bins).astype(np.int64), num_bins - 1)
    return _gap(probabilities, labels, bins, num_bins)


def _gap(
    probabilities: NDArray[np.floating[Any]],
    labels: NDArray[Any],
    bins: Int64s,
    num_bins: int,
) -> float:
    if not len(bins):
        return float("nan")
    gaps = np.bincount(bins, np.asarray(labels) - probabilities, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(bins))
