"""Beyond accuracy: diversity within a list, and coverage of the catalogue.

Legend: L lists, k places, I items, D width of the item vectors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Float32s, Float64s


def intra_list_diversity(lists: NDArray[np.integer], vectors: Float32s) -> Float64s:
    """[L] one less the mean cosine of two different items of a list; NaN for a list of one.

    Source: Ziegler et al. 2005.

    Args:
        lists: [L, k] item rows.
        vectors: [I, D] of length 1.
    """
    k = lists.shape[1]
    if k < 2:
        return np.full(len(lists), np.nan)
    # The sum over all pairs, from the length of the summed vectors.
    sums = vectors[lists].astype(np.float64).sum(axis=1)
    return 1 - ((sums**2).sum(axis=1) - k) / (k * (k - 1))


def catalogue_coverage(lists: NDArray[np.integer], num_items: int) -> float:
    """Share of the catalogue that stands in some list.

    Source: Herlocker et al. 2004.
    """
    return len(np.unique(lists)) / num_items
