"""An untuned language model as recommender: items whose texts resemble the latest items' texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from recsys.arrays import Float32s, Int32s
from recsys.data.histories import Histories
from recsys.data.moments import recent_items
from recsys.evaluation.baselines.base import TrainingLog
from recsys.evaluation.baselines.popularity import Popularity

_MAX_HISTORY: Final = 20
_DECAY: Final = 0.9


@dataclass(frozen=True)
class ZeroShot:
    """Cosine between the decayed mean of the latest 20 items' text vectors and every text.

    The items of one moment share one weight (0.9 per later distinct item); the moment that the
    20th item falls in counts as a whole.

    Attributes:
        text_vectors: [T, D] float32, unit length, one a distinct text.
        text_row_of_item: [I] int32.
        popularity: answers queries without history.
    """

    text_vectors: Float32s
    text_row_of_item: Int32s
    popularity: Popularity
    name: ClassVar[str] = "zero_shot"

    @classmethod
    def fit(cls, log: TrainingLog) -> ZeroShot:
        """Take the log's text vectors; only popularity is learned.

        Raises:
            ValueError: the log has no text vectors.
        """
        if log.text_vectors is None or log.text_rows is None:
            raise ValueError("the baseline zero_shot needs text_vectors and text_rows")
        return cls.of(log.text_vectors, log.text_rows, Popularity.fit(log))

    @classmethod
    def of(
        cls, text_vectors: Float32s, text_row_of_item: Int32s, popularity: Popularity
    ) -> ZeroShot:
        """Scale the vectors to unit length; every item must have a text row."""
        assert len(text_row_of_item) == popularity.num_items
        assert text_row_of_item.min(initial=0) >= 0
        return cls(_unit(text_vectors), text_row_of_item, popularity)

    def scores(self, histories: Histories) -> Float32s:
        """[Q, I] cosines; popularity where the history is empty."""
        num_items = self.popularity.num_items
        recent = recent_items(histories.known(num_items))
        weights = recent.weighted(
            recent.items_later < _MAX_HISTORY,
            _DECAY ** recent.items_later.astype(np.float32),
            (len(histories), num_items),
        )
        used, at = np.unique(weights.indices, return_inverse=True)
        weights = type(weights)((weights.data, at, weights.indptr), (len(histories), len(used)))
        profiles = _unit(weights @ self.text_vectors[self.text_row_of_item[used]])
        scores = np.take(profiles @ self.text_vectors.T, self.text_row_of_item, axis=1)
        scores[np.diff(weights.indptr) == 0] = self.popularity.fraction
        return scores


def _unit(vectors: Float32s) -> Float32s:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32, copy=False)
