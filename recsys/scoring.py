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
class OwnScores:
    """What is added to the scores of own items.

    Attributes:
        query, item_rows: [K] rising by query, then by row.
        extra: [K].
    """

    query: NDArray[np.int64]
    item_rows: NDArray[np.int64]
    extra: Floats


@dataclass(frozen=True)
class Scorer:
    """Scores histories against items; it answers like every baseline.

    Attributes:
        users: the user encoder, in evaluation mode.
        head: the scoring head.
        vectors: [I, D] item vectors of length 1.
        item_part: [I, D + 2], see `ScoringHead.item_part`.
        item_features: [I, G].
        standard_price: [I].
        target_codes: event codes of the target events.
        max_history: events that the user encoder reads.
    """

    users: UserEncoder
    head: ScoringHead
    vectors: Tensor
    item_part: Tensor
    item_features: Floats
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
            users.eval(),
            head.eval(),
            vectors,
            part,
            item_features,
            standard_price,
            target_codes,
            max_history,
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
    def parts(self, histories: Histories) -> tuple[Tensor, OwnScores]:
        """What the scores are made of: a user part for every item, and extras for own ones.

        Returns:
            [Q, D + 2] what the item part is multiplied with, and the extra scores of own items.
        """
        price = torch.from_numpy(usual_price(histories, self.standard_price))
        states = self.states(histories)
        own = own_items(histories, self.num_items, self.target_codes)
        query, rows = torch.from_numpy(own.query), torch.from_numpy(own.item_rows)
        extra = self.head.own_scores(
            torch.from_numpy(own.features),
            torch.from_numpy(self.item_features[own.item_rows]),
            (states[query] * self.vectors[rows]).sum(-1),
            price[query] * torch.from_numpy(self.standard_price[own.item_rows]),
        )
        user_part = self.head.user_part(states, price)
        return user_part, OwnScores(own.query, own.item_rows, extra.numpy())

    def scores(self, histories: Histories) -> Floats:
        """[Q, I] the served score of every item; histories name only rows of this catalogue."""
        user_part, own = self.parts(histories)
        scores = (user_part @ self.item_part.T).numpy()
        scores[own.query, own.item_rows] += own.extra
        return scores
