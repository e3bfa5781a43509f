"""How well scores separate the relevant items from the rest.

Legend: Q questions, R relevant items of all questions together, N labelled rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Float64s, Int64s


def auc(ranks: Int64s, offsets: Int64s, num_items: int) -> Float64s:
    """[Q] probability that a relevant item of the question outranks an irrelevant one.

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


def auc_by_group(
    scores: NDArray[np.floating[Any]], labels: NDArray[Any], groups: NDArray[Any]
) -> tuple[NDArray[Any], Float64s]:
    """AUC per group: P(a row with label 1 scores above a row with label 0).

    Rows of equal score share their ranks, so a tie is half won.

    Args:
        scores: [N] of rows.
        labels: [N] 0 or 1.
        groups: [N] int or str; the user of each row makes it AUC per user.

    Returns:
        The distinct groups, and the AUC of each: NaN where all labels are equal.

    Source: the Mann-Whitney statistic (Hanley & McNeil 1982).
    """
    distinct, group = np.unique(groups, return_inverse=True)
    order = np.lexsort((scores, group))
    rising, owner = scores[order], group[order]
    opens = np.ones(len(order), dtype=np.bool_)
    opens[1:] = (np.diff(rising) != 0) | (np.diff(owner) != 0)
    first, tie = np.flatnonzero(opens), np.cumsum(opens) - 1
    middle = (first + np.append(first[1:], len(order)) - 1) / 2
    rank = middle[tie] - np.searchsorted(owner, owner)
    liked = np.asarray(labels)[order] == 1

    def total(values: NDArray[Any]) -> Float64s:
        return np.bincount(owner, values, minlength=len(distinct)).astype(np.float64)

    ones, zeros = total(liked), total(~liked)
    won = total(rank * liked) - ones * (ones - 1) / 2
    pairs = ones * zeros
    return distinct, np.where(pairs > 0, won / np.maximum(pairs, 1), np.nan)


def pointwise_auc(scores: NDArray[np.floating[Any]], labels: NDArray[Any]) -> float:
    """The AUC of all rows together, whoever's they are; NaN if all labels are equal."""
    _, found = auc_by_group(scores, labels, np.zeros(len(scores), dtype=np.int64))
    return float(found[0]) if len(found) else float("nan")


def log_loss(probabilities: NDArray[np.floating[Any]], labels: NDArray[Any]) -> Float64s:
    """[N] -log of the probability of the actual label, clipped to [1e-6, 1 - 1e-6].

    Args:
        probabilities: [N] of label 1.
        labels: [N] 0 or 1.
    """
    kept = np.clip(probabilities.astype(np.float64), 1e-6, 1 - 1e-6)
    return -np.log(np.where(np.asarray(labels) == 1, kept, 1 - kept))
