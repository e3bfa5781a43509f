"""Batched encoding: one forward pass over the histories of several queries.

A pass costs little more for many histories than for one. So the service encodes the histories of
concurrent requests together, and builds each list from its own encoded history.

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

#: Most histories of a pass: from here on a further pass costs no more.
MOST_HISTORIES = 32
#: Most scores of a pass: 32 MB.
MOST_SCORES = 8_000_000


@dataclass(frozen=True)
class EncodedHistory:
    """One query, encoded: what its scores are made of.

    Attributes:
        scorer: encoded the history.
        history: one query, of rows of the scorer's catalogue alone.
        user_part: [1, D + 2], see `Scorer.parts`.
        pairs: the extra scores of its candidates.
        first_stage: [I] scores without the extras; None: computed on demand.
    """

    scorer: Scorer
    history: Histories
    user_part: Tensor
    pairs: PairScores
    first_stage: Float32s | None

    def scores(self) -> Float32s:
        """[I] the score of every item, as a new array."""
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
    """Encode histories, each of one query, in as few passes as memory allows.

    Args:
        scorer: encodes them; without `over_time`, as in the service.
        histories: of rows of its catalogue only.
        whole: compute the first-stage scores of all items in the pass.
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
