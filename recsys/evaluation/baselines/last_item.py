"""First-order transitions from the items of the last moment.

Source: the Markov-chain part of FPMC (Rendle et al. 2010), counted instead of factorised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scipy import sparse

from recsys.arrays import Float32s
from recsys.data.histories import Histories
from recsys.data.moments import recent_items
from recsys.evaluation.baselines.base import TrainingLog
from recsys.evaluation.baselines.popularity import Popularity
from recsys.features.item_to_item import count_transitions


@dataclass(frozen=True)
class LastItem:
    """Transitions from every item of one moment to every target of the user's next moment.

    Attributes:
        transitions: CSR [I, I] float32, the share of the left item's moments that were followed
            by a moment where the right item was wanted.
        popularity: the back-off.
    """

    transitions: sparse.csr_array
    popularity: Popularity
    name: ClassVar[str] = "last_item"

    @classmethod
    def fit(cls, log: TrainingLog, *, shrinkage: float = 10, num_kept: int = 200) -> LastItem:
        """Count transitions between neighbouring moments of a user.

        Args:
            log: the events to learn from.
            shrinkage: moments added to each item's own, which shrinks those of low support.
            num_kept: transitions kept per item.
        """
        counted = count_transitions(log.moments, shrinkage=shrinkage, num_kept=num_kept)
        return cls(counted, Popularity.fit(log))

    def scores(self, histories: Histories) -> Float32s:
        """[Q, I] summed transition shares from the items of the last moment."""
        num_items = self.popularity.num_items
        recent = recent_items(histories.known(num_items))
        last = recent.weighted(recent.moments_ago == 0, 1.0, (len(histories), num_items))
        return self.popularity.behind((last @ self.transitions).toarray())
