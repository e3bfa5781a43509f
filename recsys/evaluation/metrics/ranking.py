"""Ranks of the relevant items in a whole catalogue, and the ranking metrics that follow from them.

A question without relevant items has no value: NaN, so that no mean counts it by mistake.

Legend: Q questions, I items, R relevant items of all questions together (question q owns
`offsets[q]:offsets[q + 1]`).
"""

from __future__ import annotations

import itertools
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Float32s, Float64s, Int32s, Int64s


def tie_order(num_items: int, seed: int) -> Int64s:
    """[I] the order of equal scores, drawn once: no model gains by the catalogue's order."""
    return np.random.default_rng([seed, 3]).permutation(num_items)


def ranks_of(
    scores: Float32s, relevant: NDArray[np.integer], offsets: Int64s, tie_order: Int64s
) -> Int64s:
    """Rank each relevant item among all items of its row; no negatives are sampled.

    Args:
        scores: [Q, I] float32, higher is better; -inf marks an item that the model does not rank.
        relevant: [R] item rows.
        offsets: [Q + 1].
        tie_order: [I] see `tie_order`: of two equal scores the item with the smaller entry comes
            first.

    Returns:
        [R] ranks from 1, other relevant items counted; I + 1 for an item scored -inf.

    Raises:
        ValueError: a score is NaN.
    """
    num_questions, num_items = scores.shape
    assert scores.dtype == np.float32 and tie_order.shape == (num_items,)
    assert len(offsets) == num_questions + 1 and offsets[-1] == len(relevant)
    # The largest of some numbers is NaN if one of them is.
    if np.isnan(scores.max(initial=-np.inf)):
        raise ValueError("a score is NaN: the model has diverged, its ranks would mean nothing")
    ranks, ties = np.empty(len(relevant), dtype=np.int64), tie_order.astype(np.int32)
    for row, start, stop in zip(scores, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        ranks[start:stop] = _ranks_in(row, relevant[start:stop], ties)
    ranks[np.isneginf(scores[_question_of(offsets), relevant])] = num_items + 1
    return ranks


def _ranks_in(row: Float32s, wanted: NDArray[np.integer], tie_order: Int32s) -> Int64s:
    """[R] ranks from 1 of some items of a row [I].

    The lowest come first, by two passes over the row each. What is below one is below all that
    follow: once it pays, the others are looked up in what is left of the row, sorted.
    """
    scores, places = row[wanted], tie_order[wanted]
    ranks = np.empty(len(wanted), dtype=np.int64)
    order = np.argsort(scores)
    for done, at in enumerate(order.tolist(), start=1):
        not_below = row >= scores[at]
        num_not_below, num_above = np.count_nonzero(not_below), np.count_nonzero(row > scores[at])
        if num_not_below - num_above > 1:
            num_above += np.count_nonzero((row == scores[at]) & (tie_order < places[at]))
        ranks[at] = num_above + 1
        # An item's two passes take .2 ns a score, a copy .3, and sorting 3 for each that is left.
        if 2 * (len(order) - done) * len(row) > 3 * len(row) + 30 * num_not_below:
            rest, left = order[done:], row.compress(not_below)
            rising = np.sort(left)
            first, last = (np.searchsorted(rising, scores[rest], side) for side in _SIDES)
            ranks[rest] = len(rising) - last + 1
            if (last - first > 1).any():
                ties = tie_order.compress(not_below)
                for at in rest[last - first > 1].tolist():
                    ranks[at] += np.count_nonzero((left == scores[at]) & (ties < places[at]))
            break
    return ranks


_SIDES: Final[tuple[Literal["left", "right"], ...]] = ("left", "right")


def ranks_without(
    taken: tuple[Int64s, Int64s],
    scores: Float32s,
    relevant: NDArray[np.integer],
    offsets: Int64s,
    ranks: Int64s,
    tie_order: Int64s,
) -> Int64s:
    """Ranks in lists that some items are taken out of, none of them relevant.

    Args:
        taken: [T] questions, and [T] item rows: each pair once, rising by question.
        scores: [Q, I], see `ranks_of`, as all that follow.
        relevant: [R] item rows.
        offsets: [Q + 1].
        ranks: [R] what `ranks_of` returned.
        tie_order: [I].
    """
    query, rows = taken
    bounds = np.searchsorted(query, np.arange(len(offsets))).tolist()
    kept = ranks.copy()
    for number, (start, stop) in enumerate(itertools.pairwise(offsets.tolist())):
        out = rows[bounds[number] : bounds[number + 1]]
        wanted = relevant[start:stop]
        score, own = scores[number, out], scores[number, wanted][:, None]
        first = (score == own) & (tie_order[out] < tie_order[wanted][:, None])
        kept[start:stop] -= ((score > own) | first).sum(axis=1)
    unranked = ranks > scores.shape[1]
    kept[unranked] = ranks[unranked]
    return kept


def ndcg_at_k(ranks: Int64s, offsets: Int64s, k: int) -> Float64s:
    """[Q] binary nDCG@k; the ideal fills min(k, number of relevant items) places.

    Source: Jaervelin & Kekaelaeinen 2002, with the discount 1 / log2(rank + 1).

    Raises:
        ValueError: k < 1.
    """
    gains = np.where(ranks <= _checked(k), 1 / np.log2(ranks + 1.0), 0.0)
    ideal = np.cumsum(1 / np.log2(np.arange(2.0, k + 2.0)))
    counts = np.diff(offsets)
    return _per_relevant(_sums(gains, offsets), counts, ideal[np.clip(counts, 1, k) - 1])


def recall_at_k(ranks: Int64s, offsets: Int64s, k: int) -> Float64s:
    """[Q] share of all relevant items that are among the first k (below 1 where there are more).

    Raises:
        ValueError: k < 1.
    """
    counts = np.diff(offsets)
    return _per_relevant(_sums(ranks <= _checked(k), offsets), counts, np.maximum(counts, 1))


def mrr_at_k(ranks: Int64s, offsets: Int64s, k: int) -> Float64s:
    """[Q] reciprocal rank of the first relevant item, 0 if it lies beyond k.

    Raises:
        ValueError: k < 1.
    """
    best = _best(ranks, offsets)
    return _per_relevant(np.where(best <= _checked(k), 1 / best, 0.0), np.diff(offsets), 1)


def hit_rate_at_k(ranks: Int64s, offsets: Int64s, k: int) -> Float64s:
    """[Q] 1 if a relevant item is among the first k, else 0.

    Raises:
        ValueError: k < 1.
    """
    hit = _best(ranks, offsets) <= _checked(k)
    return _per_relevant(hit.astype(np.float64), np.diff(offsets), 1)


def _checked(k: int) -> int:
    if k < 1:
        raise ValueError(f"k must be at least 1 (got {k})")
    return k


def _question_of(offsets: Int64s) -> Int64s:
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def _sums(values: NDArray[np.generic], offsets: Int64s) -> Float64s:
    sums = np.bincount(_question_of(offsets), weights=values, minlength=len(offsets) - 1)
    return sums.astype(np.float64, copy=False)  # no weights at all come back as integers


def _best(ranks: Int64s, offsets: Int64s) -> Float64s:
    best = np.full(len(offsets) - 1, np.inf)
    np.minimum.at(best, _question_of(offsets), ranks)
    return best


def _per_relevant(values: Float64s, counts: Int64s, divisor: Float64s | Int64s | int) -> Float64s:
    return np.where(counts > 0, values / divisor, np.nan)
