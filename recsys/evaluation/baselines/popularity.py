"""Most popular items, the same for everyone; the fallback of every other baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from recsys.arrays import Float32s
from recsys.data.histories import Histories
from recsys.evaluation.baselines.base import TrainingLog


@dataclass(frozen=True)
class Popularity:
    """Target events of each item, as a fraction.

    Attributes:
        fraction: [I] in [0, 1): count / (largest count + 1).
    """

    fraction: Float32s
    name: ClassVar[str] = "popularity"

    @classmethod
    def fit(cls, log: TrainingLog) -> Popularity:
        """Count the target events."""
        counts = np.bincount(log.events.item_rows[log.is_target], minlength=log.num_items)
        return cls((counts / (counts.max(initial=0) + 1)).astype(np.float32))

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return len(self.fraction)

    def scores(self, histories: Histories) -> Float32s:
        """[Q, I] the same row for every query."""
        return np.tile(self.fraction, (len(histories), 1))

    def behind(self, scores: Float32s) -> Float32s:
        """[Q, I] scores where positive, elsewhere popularity below all of them (back-off).

        Args:
            scores: overwritten.
        """
        np.copyto(scores, self.fraction - 1, where=scores <= 0)
        return scores
