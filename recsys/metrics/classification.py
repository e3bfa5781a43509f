"""How well scores separate the relevant items from the rest.

Legend: Q questions, R relevant items of all questions together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]


def auc(ranks: Int64s, offsets: Int64s, num_items: int) -> NDArray[np.float64]:
    """[Q] chance that a relevant item of the question outranks an irrelevant one.

    An unranked relevant item (rank above `num_items`) loses against every irrelevant one.

    Args:
        ranks: [R] from 1, of `ranks_of`.
        offsets: [Q + 1].
        num_items: size of the catalogue that the ranks were taken in.

    Returns:
        NaN for a question where no item, or every item, is relevant.

    Source: the Mann-Whitney statistic (Hanley & McNeil 1982).
    """
    counts = np.diff(offsets)
    question = np.repeat(np.arange(len(counts)), counts)
    rising = ranks[np.lexsort((ranks, question))]
    # Of the items above the n-th relevant one (n from 0), n are relevant themselves.
    nth = np.arange(len(rising)) - offsets[question]
    num_irrelevant = num_items - counts
    above = np.minimum(rising - 1 - nth, num_irrelevant[question])
    lost = np.bincount(question, weights=above, minlength=len(counts))
    pairs = counts * num_irrelevant
    return np.where(pairs > 0, 1 - lost / np.maximum(pairs, 1), np.nan)
