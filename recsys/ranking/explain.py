"""Explanations: the parts that a score is the sum of, and the past items that raise it.

A reason is counterfactual. The serving function scores the history again without one past item. The
score lost is that item's gain. So without a named reason the item would score lower, by its gain.

Legend: K items to explain, P past items, D width of the item vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from recsys.arrays import Float32s, Int64s
from recsys.data.histories import Histories
from recsys.data.moments import recent_items
from recsys.ranking.scorer import PairScores, Scorer

#: Latest past items that are tried as reasons; reasons that are returned.
NUM_PAST, NUM_REASONS = 30, 3
#: What a score is the sum of.
PARTS: Final = ("taste", "price", "popularity", "history")


@dataclass(frozen=True)
class Reason:
    """One past item.

    Attributes:
        item_row: the past item.
        gain: what the explained item's score would lose without it; positive.
        event_code: its strongest event.
        count: moments with that event of the item.
        last_us: the latest of these moments, microseconds.
    """

    item_row: int
    gain: float
    event_code: int
    count: int
    last_us: int


@dataclass(frozen=True)
class Explanation:
    """Why one item got its score.

    Attributes:
        parts: taste (the encoders' cosine), price, popularity (user-independent features) and
            history (the second stage); they add up to the score.
        reasons: largest gain first; empty if no single past item raises the score.
    """

    parts: dict[str, float]
    reasons: list[Reason]


def explain(
    scorer: Scorer, history: Histories, rows: Int64s, item_parts: Float32s
) -> list[Explanation]:
    """Explain the scores of some items for one history.

    Args:
        scorer: scores.
        history: one query, of rows of this catalogue alone.
        rows: [K] catalogue rows; -1 for an item that the catalogue does not hold.
        item_parts: [K, D + 2] the items' side of the score.
    """
    assert len(history) == 1
    user_part, pairs = scorer.parts(history)
    whole = _extras(pairs, rows, 1)[0]
    products = user_part.numpy()[0] * item_parts
    taste = products[:, :-2].sum(axis=1)
    parts = np.stack([taste, products[:, -2], products[:, -1], whole], axis=1)

    past = _past(history)
    gains = np.zeros((len(past), len(rows)), dtype=np.float32)
    if len(past):
        less_part, less_pairs = scorer.parts(_without_each(history, past))
        less = (less_part @ torch.from_numpy(item_parts).T).numpy()
        gains = parts.sum(axis=1) - less - _extras(less_pairs, rows, len(past))
    explanations = []
    for number in range(len(rows)):
        best = np.argsort(-gains[:, number], kind="stable")[:NUM_REASONS]
        explanations.append(
            Explanation(
                dict(zip(PARTS, parts[number].tolist(), strict=True)),
                [
                    _reason(history, int(past[place]), float(gains[place, number]))
                    for place in best
                    if gains[place, number] > 0
                ],
            )
        )
    return explanations


def _past(history: Histories) -> Int64s:
    """[P] the latest distinct items."""
    recent = recent_items(history)
    order = np.lexsort((recent.item, recent.moments_ago))
    return recent.item[order][:NUM_PAST]


def _without_each(history: Histories, past: Int64s) -> Histories:
    """P queries: the history without any event of one past item."""
    keep = history.item_rows[None, :] != past[:, None]
    _, event = np.nonzero(keep)
    return Histories(
        history.item_rows[event],
        history.event_codes[event],
        history.timestamps[event],
        np.concatenate([[0], np.cumsum(keep.sum(axis=1))]).astype(np.int64),
        np.repeat(history.now, len(past)),
    )


def _extras(pairs: PairScores, rows: Int64s, num_queries: int) -> Float32s:
    """[Q, K] the second stage's extra score of each item."""
    extras = np.zeros((num_queries, len(rows)), dtype=np.float32)
    for number, row in enumerate(rows.tolist()):
        hit = pairs.item_rows == row
        extras[pairs.query[hit], number] = pairs.extra[hit]
    return extras


def _reason(history: Histories, row: int, gain: float) -> Reason:
    mine = history.item_rows == row
    code = int(history.event_codes[mine].max())
    times = np.unique(history.timestamps[mine & (history.event_codes == code)])
    return Reason(row, gain, code, len(times), int(times[-1]))
