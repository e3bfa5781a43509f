"""Item-based nearest neighbours: items that co-occur with those of the recent history.

Source: Sarwar et al. 2001 (cosine between item columns), with the shrinkage of Bell & Koren 2007.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import sparse

from recsys.arrays import Float32s
from recsys.data.histories import Histories
from recsys.data.moments import Moments, recent_items
from recsys.evaluation.baselines.base import TrainingLog
from recsys.evaluation.baselines.popularity import Popularity
from recsys.features.item_to_item import count_co_occurrence


@dataclass(frozen=True)
class ItemKnn:
    """Cosine neighbours over windows of a user's consecutive moments.

    Attributes:
        similarity: CSR [I, I] float32. Beside the diagonal: windows where the left item was seen
            and the right one wanted, over the geometric mean of both items' windows plus the
            shrinkage. On the diagonal: the share of an item's users who came back for it: high
            in a grocery, low in a bookshop.
        popularity: the back-off.
        max_history: latest distinct items of a query that are read (with all items of a moment).
        decay: weight of an item against one a moment later.
    """

    similarity: sparse.csr_array
    popularity: Popularity
    max_history: int
    decay: float
    name: ClassVar[str] = "item_knn"

    @classmethod
    def fit(
        cls,
        log: TrainingLog,
        *,
        window: int = 5,
        shrinkage: float = 20,
        num_kept: int = 200,
        max_history: int = 100,
        decay: float = 0.8,
    ) -> ItemKnn:
        """Compare all items by the windows they occur in.

        Args:
            log: the events to learn from.
            window: moments in a window. Of 1 to 20, 5 was the best compromise of three logs (a
                grocer's, a gift wholesaler's, game reviews).
            shrinkage: added to the cosine's divisor, shrinks pairs of low support.
            num_kept: neighbours kept per item.
            max_history: latest distinct items of a query that are read.
            decay: weight of an item against one a moment later.
        """
        neighbours = count_co_occurrence(
            log.moments, window=window, shrinkage=shrinkage, num_kept=num_kept
        )
        with_own = (neighbours + sparse.diags_array(_repeat_share(log.moments))).tocsr()
        popularity = Popularity.fit(log)
        return cls(with_own, popularity, max_history, decay)

    def scores(self, histories: Histories) -> Float32s:
        """[Q, I] decayed sum of similarities to the latest distinct items."""
        num_items = self.popularity.num_items
        recent = recent_items(histories.known(num_items))
        weights = recent.weighted(
            recent.items_later < self.max_history,
            self.decay ** recent.moments_ago.astype(np.float32),
            (len(histories), num_items),
        )
        return self.popularity.behind((weights @ self.similarity).toarray())


def _repeat_share(moments: Moments) -> Float32s:
    """[I] share of the users who saw an item that saw it at two moments or more and wanted it."""
    _, user = np.unique(moments.user, return_inverse=True)
    seen, wanted = moments.merged(user)
    came_back = _binary(seen >= 2).multiply(_binary(wanted)).sum(axis=0)
    num_users = np.diff(seen.tocsc().indptr)
    return (came_back / np.maximum(num_users, 1)).astype(np.float32)


def _binary(counts: sparse.csr_array) -> sparse.csr_array:
    return (counts > 0).astype(np.float32)
