"""Retrieval: the best items of the whole catalogue for one history, exactly or by an index.

Legend: I items, C candidates of the second stage, N items read.
"""

from __future__ import annotations

import numpy as np
import torch

from recsys.arrays import Bools, Float32s, Int32s, Int64s
from recsys.data.histories import Histories
from recsys.features.stacked import Stacked
from recsys.ranking.encoded import EncodedHistory
from recsys.ranking.index import LENGTHS, Index
from recsys.ranking.top_k import top_k


def barred_rows(
    history: Histories, exclude: Int32s, target_codes: list[int], *, exclude_owned: bool
) -> Int64s:
    """Rows to exclude.

    Args:
        history: one query.
        exclude: rows; -1 names no item.
        target_codes: event codes of the target events.
        exclude_owned: exclude the items with a target event in the history too.
    """
    barred = exclude[exclude >= 0].astype(np.int64)
    if exclude_owned:
        owned = np.isin(history.event_codes, target_codes)
        barred = np.concatenate([barred, history.item_rows[owned]])
    return barred


def retrieve(
    encoded: EncodedHistory,
    size: int,
    *,
    barred: Int64s,
    allowed: Bools | None,
    index: Index | None,
) -> tuple[Int64s, Float32s]:
    """Rows and scores of the best items that are allowed and not barred, highest first.

    Args:
        encoded: the query.
        size: how many; fewer come back if fewer may.
        barred: rows that must not come back.
        allowed: [I] mask; None means all.
        index: tried first; None: all items are read.

    Raises:
        FloatingPointError: a score is not finite.
    """
    if index is not None and size <= LENGTHS[-1]:
        found = _search(index, encoded, size, barred, allowed)
        if found is not None:
            return found
    scores = encoded.scores()
    if allowed is not None:
        scores[~allowed] = -np.inf
    scores[barred] = -np.inf
    found = top_k(scores, size)
    # What is not finite is not among the best, so too few come back; else nobody looks.
    if len(found[0]) < size:
        check_finite(scores[scores != -np.inf])
    return found


def _search(
    index: Index, encoded: EncodedHistory, size: int, barred: Int64s, allowed: Bools | None
) -> tuple[Int64s, Float32s] | None:
    """`retrieve` by the index; None if it finds too few items that may come back."""
    user, pairs, scorer = encoded.user_part, encoded.pairs, encoded.scorer
    # A candidate of the second stage may score less than the first stage says, and so may make
    # room for another: of the rest, as many as are wanted are looked at besides all candidates.
    least = size + len(pairs.item_rows) + len(barred)
    rows, scores = index.search(user[0].numpy(), size, least)
    if isinstance(scorer.item_part, Stacked):  # added items are in no cell: all are read
        added = scorer.item_part.lower
        added_rows = np.arange(scorer.num_items - len(added), scorer.num_items)
        rows = np.concatenate([rows, added_rows])
        scores = np.concatenate([scores, (added @ user[0]).numpy()])
    keep = np.ones(scorer.num_items, dtype=bool) if allowed is None else allowed.copy()
    keep[barred] = False
    candidates = pairs.item_rows[keep[pairs.item_rows]]
    extra = pairs.extra[keep[pairs.item_rows]]
    keep[candidates] = False
    scores[~keep[rows]] = -np.inf
    if len(candidates) + np.isfinite(scores).sum() < size:
        return None
    places, first = top_k(scores, size)
    mine = (scorer.item_part[torch.from_numpy(candidates)] @ user[0]).numpy() + extra
    rows = np.concatenate([candidates, rows[places]])
    scores = np.concatenate([mine, first])
    # Ties go by row, as they do where all items are read.
    order = np.lexsort((rows, -scores))[:size]
    return rows[order], scores[order]


def check_finite(scores: Float32s) -> None:
    """Raise `FloatingPointError` if a score is not finite."""
    if not np.isfinite(scores).all():
        raise FloatingPointError("scores are not finite: the model has diverged")
