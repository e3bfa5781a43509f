"""The most wanted items, the same for everyone; what every other baseline falls back to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from recsys.data.histories import Histories, UserEvents

Float32s = NDArray[np.float32]


@dataclass(frozen=True)
class Popularity:
    """Target events of each item, as a fraction.

    Attributes:
        fraction: [I] in [0, 1): count / (largest count + 1).
    """

    fraction: Float32s
    name: ClassVar[str] = "popularity"

    @classmethod
    def fit(cls, train: UserEvents, num_items: int, target_codes: Sequence[int]) -> Popularity:
        """Count the target events; items outside rows 0..num_items-1 are left out."""
        counted = np.isin(train.event_codes, np.asarray(target_codes))
        counted &= (train.item_rows >= 0) & (train.item_rows < num_items)
        counts = np.bincount(train.item_rows[counted], minlength=num_items)
        return cls((counts / (counts.max(initial=0) + 1)).astype(np.float32))

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return len(self.fraction)

    def scores(self, histories: Histories) -> Float32s:
        """[Q, I] the same row for every query."""
        return np.tile(self.fraction, (len(histories), 1))

    def behind(self, scores: Float32s) -> Float32s:
        """Back off: [Q, I] scores where positive, elsewhere popularity below all of them."""
        return np.where(scores > 0, scores, self.fraction - 1)
