"""Histories that the model has read, several at a time.

A pass costs little more for many users than for one: most of it is the same number of calls. So a
service encodes the histories of all who ask at once, and makes each one's list from its own.

Legend: I items, D width of the vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from recsys.arrays import Float32s, Int32s
from recsys.data.histories import Histories
from recsys.ranking.scorer import PairScores, Scorer

#: Histories of a pass, at most: from here on one pass more costs nothing more.
MOST_HISTORIES = 32
#: Scores of a pass, at most: 32 MB.
MOST_SCORES = 8_000_000


@dataclass(frozen=True)
class EncodedHistory:
    """What the scores of one question are made of.

    Attributes:
        scorer: read the history.
        history: one query, of rows of the scorer's catalogue alone.
        user_part: [1, D + 2], see `Scorer.parts`.
        pairs: the extra scores of its candidates.
        first_stage: [I] what every item scores without the extras; None: it was not asked for.
    """

    scorer: Scorer
    history: Histories
    user_part: Tensor
    pairs: PairScores
    first_stage: Float32s | None

    def scores(self) -> Float32s:
        """[I] the score of every item, the caller's to change."""
        if self.first_stage is None:
            scores = self.scorer.first_stage(self.user_part)[0]
        else:
            scores = self.first_stage.copy()
        scores[self.pairs.item_rows] += self.pairs.extra
        return scores

    def scores_of(self, rows: Int32s) -> Float32s:
        """[C] the scores of some items, by row [C]."""
        user, pairs = self.user_part, self.pairs
        part = self.scorer.item_part.numpy().take(rows, axis=0)
        scores = part @ user[0].numpy()
        if len(pairs.item_rows):
            place = np.minimum(np.searchsorted(pairs.item_rows, rows), len(pairs.item_rows) - 1)
            hit = pairs.item_rows[place] == rows
            scores += np.where(hit, pairs.extra[place], 0).astype(np.float32)
        return scores


def encode(scorer: Scorer, histories: Sequence[Histories], *, whole: bool) -> list[EncodedHistory]:
    """Read some histories, each of one query, in as few passes as memory allows.

    Args:
        scorer: reads them; without `over_time`, as a service has it.
        histories: of rows of its catalogue alone.
        whole: the scores of all items will be asked for.
    """
    assert scorer.over_time is None
    most = MOST_HISTORIES
    if whole:
        most = max(1, min(most, MOST_SCORES // max(1, scorer.num_items)))
    found: list[EncodedHistory] = []
    for low in range(0, len(histories), most):
        found += _pass(scorer, histories[low : low + most], whole)
    return found


def _pass(scorer: Scorer, histories: Sequence[Histories], whole: bool) -> Iterator[EncodedHistory]:
    user_parts, pairs = scorer.parts(Histories.joined(histories))
    first_stage = scorer.first_stage(user_parts) if whole else None
    bounds = np.searchsorted(pairs.query, np.arange(len(histories) + 1))
    for number, history in enumerate(histories):
        mine = slice(bounds[number], bounds[number + 1])
        rows = pairs.item_rows[mine]
        yield EncodedHistory(
            scorer,
            history,
            user_parts[number : number + 1],
            PairScores(np.zeros(len(rows), dtype=np.int64), rows, pairs.extra[mine]),
            None if first_stage is None else first_stage[number],
        )
