"""From a history to scores: one function for validation, evaluation and service.

Legend: Q queries, I items, D width of the vectors, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.batches import make_windows
from recsys.features import own_items, usual_price
from recsys.histories import Histories
from recsys.model.heads import ScoringHead
from recsys.model.user_encoder import UserEncoder

Floats = NDArray[np.float32]

#: Histories encoded together; attention needs memory in proportion.
STATES_AT_ONCE = 64


@dataclass(frozen=True)
class Scorer:
    """Scores histories against items; it answers like every baseline.

    Attributes:
        users: the user encoder, in evaluation mode.
        head: the scoring head.
        vectors: [I, D] item vectors of length 1.
        item_part: [I, D + 2], see `ScoringHead.item_part`.
        standard_price: [I].
        target_codes: event codes of the target events.
        max_history: events that the user encoder reads.
    """

    users: UserEncoder
    head: ScoringHead
    vectors: Tensor
    item_part: Tensor
    standard_price: Floats
    target_codes: list[int]
    max_history: int
    name: str = "raycommend"

    @staticmethod
    def build(
        users: UserEncoder,
        head: ScoringHead,
        vectors: Tensor,
        item_features: Floats,
        standard_price: Floats,
        target_codes: list[int],
        max_history: int,
    ) -> Scorer:
        """Fold the head's item side into the item vectors."""
        with torch.no_grad():
            part = head.item_part(
                vectors, torch.from_numpy(item_features), torch.from_numpy(standard_price)
            ).contiguous()
        return Scorer(
            users.eval(), head.eval(), vectors, part, standard_price, target_codes, max_history
        )

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.item_part)

    @torch.no_grad()
    def states(self, histories: Histories) -> Tensor:
        """[Q, D] the users' states after their histories."""
        recent = histories.last(self.max_history)
        parts = [
            self._states(recent[low : low + STATES_AT_ONCE])
            for low in range(0, len(recent), STATES_AT_ONCE)
        ]
        return torch.cat(parts) if parts else self.vectors[:0]

    def _states(self, histories: Histories) -> Tensor:
        windows = make_windows(histories)
        states = self.users(
            self.vectors[windows.item_rows],
            windows.event_codes,
            windows.gap_us,
            windows.moments,
            windows.state_of_event,
            windows.num_states,
        )
        return states[windows.last_state]

    @torch.no_grad()
    def user_part(self, histories: Histories) -> Tensor:
        """[Q, D + 2] what an item's part is multiplied with."""
        price = torch.from_numpy(usual_price(histories, self.standard_price))
        return self.head.user_part(self.states(histories), price)

    @torch.no_grad()
    def own_scores(
        self, histories: Histories
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
        """Query, item row and extra score of every own item."""
        own = own_items(histories, self.num_items, self.target_codes)
        return (
            own.query,
            own.item_rows,
            self.head.own_scores(torch.from_numpy(own.features)).numpy(),
        )

    def scores(self, histories: Histories) -> Floats:
        """[Q, I] the served score of every item; histories may name only rows of this catalogue."""
        scores = (self.user_part(histories) @ self.item_part.T).numpy()
        query, rows, extra = self.own_scores(histories)
        scores[query, rows] += extra
        return scores
