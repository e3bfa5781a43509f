"""The scorer: histories to scores, one function for validation, evaluation and service.

Legend: Q queries, I items, D width of the vectors, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Float32s, Int64s
from recsys.data.histories import Histories
from recsys.features.candidates import Candidates, cosines, make_pairs
from recsys.features.item_to_item import Relations
from recsys.features.side_features import FeaturesOverTime, usual_price
from recsys.features.stacked import Stacked
from recsys.features.windows import make_windows
from recsys.model.ranking_head import ScoringHead
from recsys.model.user_encoder import UserEncoder

#: Histories encoded together: their activations fit a processor's cache.
STATES_AT_ONCE = 16


@dataclass(frozen=True)
class PairScores:
    """Extra scores of the second stage for its candidates.

    Attributes:
        query, item_rows: [K] rising by query, then by row.
        extra: [K].
    """

    query: Int64s
    item_rows: Int64s
    extra: Float32s


@dataclass(frozen=True)
class Scorer:
    """Scores histories against all items; the same interface as the baselines.

    Attributes:
        users: the user encoder, in evaluation mode.
        head: the scoring head.
        vectors: [I, D] item vectors of length 1.
        item_part: [I, D + 2], see `ScoringHead.item_part`.
        item_features: [I, G], those that `item_part` was made with.
        standard_price: [I].
        relations: as of the same moment as `item_features`.
        target_codes: event codes of the target events.
        max_history: events that the user encoder reads.
        over_time: item features as of each query's day, in place of `item_features`; None in the
            service, which has those of its bundle.
    """

    users: UserEncoder
    head: ScoringHead
    vectors: Tensor | Stacked
    item_part: Tensor | Stacked
    item_features: Float32s | Stacked
    standard_price: Float32s | Stacked
    relations: Relations
    target_codes: list[int]
    max_history: int
    over_time: FeaturesOverTime | None = None
    name: str = "raycommend"

    @staticmethod
    def build(
        users: UserEncoder,
        head: ScoringHead,
        vectors: Tensor,
        item_features: Float32s,
        standard_price: Float32s,
        relations: Relations,
        target_codes: list[int],
        max_history: int,
        over_time: FeaturesOverTime | None = None,
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
            relations,
            target_codes,
            max_history,
            over_time,
        )

    def with_items(
        self, vectors: Tensor, item_features: Float32s, standard_price: Float32s
    ) -> Scorer:
        """The same scorer over a catalogue with M more items, without related items.

        Arrays of the other items are shared, not copied.

        Args:
            vectors: [M, D] of length 1.
            item_features: [M, G].
            standard_price: [M].
        """
        assert self.over_time is None
        with torch.no_grad():
            part = self.head.item_part(
                vectors, torch.from_numpy(item_features), torch.from_numpy(standard_price)
            )
        return replace(
            self,
            vectors=Stacked(self.vectors, vectors),
            item_part=Stacked(self.item_part, part),
            item_features=Stacked(self.item_features, item_features),
            standard_price=Stacked(self.standard_price, standard_price),
            relations=self.relations.with_items(len(vectors)),
        )

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.item_part)

    @torch.no_grad()
    def states(self, histories: Histories) -> Tensor:
        """[Q, D] user states after the histories."""
        recent = histories.last(self.max_history)
        found = torch.empty((len(recent), self.vectors.shape[1]))
        # The last block pads the last moments to the widest of a pass: those of like width go
        # together.
        order = np.argsort(recent.last_moment_sizes, kind="stable")
        for low in range(0, len(recent), STATES_AT_ONCE):
            part = order[low : low + STATES_AT_ONCE]
            found[torch.from_numpy(part)] = self._states(recent.take(part))
        return found

    def _states(self, histories: Histories) -> Tensor:
        windows = make_windows(histories)
        return self.users.last_states(self.vectors[windows.item_rows], windows)

    @torch.no_grad()
    def parts(
        self, histories: Histories, candidates: Candidates | None = None
    ) -> tuple[Tensor, PairScores]:
        """The user side of the scores, and the second stage's extras.

        Args:
            histories: Q of them.
            candidates: of these histories by this scorer's relations, if they are known.

        Returns:
            [Q, D + 2] user part, which is multiplied with the item part, and the extra scores.
        """
        price, states = self._price(histories), self.states(histories)
        vectors, of_price = self.vectors.numpy(), self.standard_price
        if candidates is None:
            pairs = make_pairs(histories, self.relations, vectors, self.target_codes)
        else:
            pairs = candidates.pairs(vectors)
        query, rows = pairs.query, pairs.item_rows
        extra = self.head.pair_scores(
            torch.from_numpy(pairs.features),
            torch.from_numpy(self.features_of(histories.now[query], rows)),
            torch.from_numpy(cosines(states.numpy()[:, None], vectors, query, rows)[:, 0]),
            torch.from_numpy(price.numpy()[query] * of_price.take(rows, axis=0)),
        )
        user_part = self.head.user_part(states, price)
        return user_part, PairScores(query, rows, extra.numpy())

    @torch.no_grad()
    def user_parts(self, histories: Histories) -> Tensor:
        """[Q, D + 2] user parts, without the second stage; see `parts`."""
        return self.head.user_part(self.states(histories), self._price(histories))

    def _price(self, histories: Histories) -> Tensor:
        return torch.from_numpy(usual_price(histories, self.standard_price))

    @torch.no_grad()
    def scores(self, histories: Histories, candidates: Candidates | None = None) -> Float32s:
        """[Q, I] the served score of every item.

        Args:
            histories: Q of them, which hold only rows of this catalogue.
            candidates: see `parts`.
        """
        user_part, pairs = self.parts(histories, candidates)
        scores = self.first_stage(user_part)
        scores[pairs.query, pairs.item_rows] += pairs.extra
        if self.over_time is not None:
            days, place = self.days_of(histories.now)
            gains = [self._since(self.over_time.of(day)) for day in days]
            for row, number in zip(scores, place.tolist(), strict=True):
                row += gains[number]
        return scores

    @torch.no_grad()
    def first_stage(self, user_part: Tensor) -> Float32s:
        """[Q, I] the first-stage score of every item."""
        part = self.item_part
        if isinstance(part, Stacked):
            return torch.cat([user_part @ part.upper.T, user_part @ part.lower.T], dim=1).numpy()
        return (user_part @ part.T).numpy()

    def days_of(self, now: Int64s) -> tuple[list[int], Int64s]:
        """The distinct days of the queries' item features, and the place of each query's day."""
        if self.over_time is None:
            return [0], np.zeros(len(now), dtype=np.int64)
        days, place = np.unique(self.over_time.days(now), return_inverse=True)
        return days.tolist(), place

    def features_on(self, day: int) -> Float32s | Stacked:
        """[I, G] item features as of one of `days_of`."""
        return self.item_features if self.over_time is None else self.over_time.of(day)

    def features_of(self, now: Int64s, item_rows: Int64s) -> Float32s:
        """[K, G] features of K items, each as of its own moment `now` [K]."""
        if self.over_time is None:
            features: Float32s = self.item_features.take(item_rows, axis=0)
            return features
        days, place = self.days_of(now)
        features = np.empty((len(item_rows), self.item_features.shape[1]), dtype=np.float32)
        for number, day in enumerate(days):
            of_day = place == number
            features[of_day] = self.features_on(day)[item_rows[of_day]]
        return features

    def _since(self, features: Float32s) -> Float32s:
        """[I] gain of the user-independent item scores since `item_part` was computed."""
        now = self.head.item_scores(torch.from_numpy(features)).numpy()
        then = self.item_part[:, -1].numpy()
        return np.where(np.isfinite(then), now - then, 0).astype(np.float32)
