"""A loaded bundle, asked by item ids: what a notebook or another service calls.

`Recommender` of `recsys.recommender` answers in rows of the catalogue. Here ids go in, and items
with ids come out.

Legend: D width of the vectors.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from recsys.arrays import Float32s, Int32s
from recsys.data.histories import Histories
from recsys.data.standing import Hidden, standing
from recsys.errors import DataError
from recsys.recommender import Recommender as RowRecommender
from recsys.schema import EVENT_CODE

#: Item id and event type, and when it happened: for all events of a history, or for none.
Event = tuple[str, str] | tuple[str, str, dt.datetime]

#: Between two events that came without a time.
_STEP_US = 1_000_000


@dataclass(frozen=True)
class ScoredItem:
    """An item and its score; higher is better, and comparable for one history only."""

    item_id: str
    title: str
    score: float


@dataclass(frozen=True)
class PastItem:
    """A past item that carries a score.

    Attributes:
        gain: what the explained item's score would lose without it; positive.
    """

    item_id: str
    title: str
    gain: float


@dataclass(frozen=True)
class ExplainedItem(ScoredItem):
    """An item, its score, and why.

    Attributes:
        parts: what the score is the sum of: taste, price, popularity, history.
        reasons: the past items that carry it, the strongest first.
    """

    parts: dict[str, float]
    reasons: list[PastItem]


class Recommender(RowRecommender):
    """A bundle's model, asked by item ids.

    A history is a list of events, oldest first: `("item", "purchase")`, or
    `("item", "purchase", datetime)`. Without times the events count as successive, ending now.
    Items that the catalogue does not hold are left out of a history.
    """

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Load and verify a bundle.

        Raises:
            BundleError: the bundle is missing, of another format, incomplete or damaged.
        """
        loaded = super().load(Path(folder))
        assert isinstance(loaded, cls)
        return loaded

    def recommend_items(
        self,
        events: Sequence[Event],
        k: int = 10,
        *,
        exclude: Sequence[str] = (),
        exclude_owned: bool = False,
        diversity: float = 0.0,
        filters: Mapping[str, Any] | None = None,
        now: dt.datetime | None = None,
    ) -> list[ScoredItem]:
        """The best k items of the whole catalogue, in the order to show; fewer if fewer may come.

        Args:
            events: the history; empty for somebody of whom nothing is known.
            k: how many.
            exclude: ids that must not come back.
            exclude_owned: leave out items with a target event in the history.
            diversity: 0 gives the best scores; towards 1 the items of the list differ more.
            filters: `category`, `brand` (lists), `min_price`, `max_price`.
            now: the moment of the question; None: the clock's.

        Raises:
            DataError: an event type is unknown.
        """
        history, hidden = self._asked(events, now)
        rows, scores = self.recommend(
            history, k, exclude=self.rows_of(exclude),
            allowed=self.visible(hidden, self.allowed(**(filters or {}))),
            diversity=diversity, exclude_owned=exclude_owned,
        )  # fmt: skip
        return self._scored(rows.tolist(), scores.tolist())

    def rank_items(
        self, events: Sequence[Event], item_ids: Sequence[str], *, now: dt.datetime | None = None
    ) -> list[ScoredItem]:
        """The given items, best first, with the scores of `recommend_items`; no disliked ones.

        Raises:
            DataError: an item or an event type is unknown.
        """
        rows, (history, hidden) = self._known_rows(item_ids), self._asked(events, now)
        if (shown := self.visible_candidates(hidden, rows)) is not None:
            rows = rows[shown]
        scores = self.rank(history, rows)
        order = np.argsort(-scores, kind="stable")
        return self._scored(rows[order].tolist(), scores[order].tolist())

    def explain_items(
        self, events: Sequence[Event], item_ids: Sequence[str], *, now: dt.datetime | None = None
    ) -> list[ExplainedItem]:
        """Why the given items score as `rank_items` says, in the order given.

        Raises:
            DataError: an item or an event type is unknown.
        """
        rows = self._known_rows(item_ids)
        found = []
        for row, why in zip(
            rows.tolist(), self.explain(self.history(events, now=now), rows), strict=True
        ):
            reasons = [
                PastItem(self.item_id(past.item_row), self.title(past.item_row), past.gain)
                for past in why.reasons
            ]
            score = float(sum(why.parts.values()))
            found.append(
                ExplainedItem(self.item_id(row), self.title(row), score, why.parts, reasons)
            )
        return found

    def item_vectors(self, item_ids: Sequence[str]) -> Float32s:
        """[n, D] unit vectors of the given items: a dot product is a cosine.

        Raises:
            DataError: an item is unknown.
        """
        rows = torch.from_numpy(self._known_rows(item_ids).astype(np.int64))
        return np.array(self.scorer.vectors[rows].numpy())

    def history(self, events: Sequence[Event], *, now: dt.datetime | None = None) -> Histories:
        """One query of a history, for the methods that answer in rows; without what was taken back.

        Raises:
            DataError: an event type is unknown, or some events have a time and others none.
        """
        return self._asked(events, now)[0]

    def _asked(self, events: Sequence[Event], now: dt.datetime | None) -> tuple[Histories, Hidden]:
        """The query of a history, and what its user does not want to see."""
        codes: dict[str, str | None] = dict(self.recipe.data.event_types)
        clock = time.time_ns() // 1000 if now is None else _microseconds(now)
        timed = {len(event) == 3 for event in events}
        if len(timed) > 1:
            raise DataError(
                "some events have a time and others have none", field="events",
                fix="give a time for every event or for none",
            )  # fmt: skip
        rows = self.rows_of([event[0] for event in events]).tolist()
        kept = []
        for place, (event, row) in enumerate(zip(events, rows, strict=True)):
            name = codes.get(event[1], event[1])
            if name is not None and name not in EVENT_CODE:
                raise DataError(
                    "unknown event type", field=f"events[{place}]", value=event[1],
                    fix=f"use one of {', '.join([*EVENT_CODE, *codes])}",
                )  # fmt: skip
            if name is not None and row >= 0:
                at = clock - (len(events) - place) * _STEP_US
                at = _microseconds(event[2]) if len(event) == 3 else at
                kept.append((at, place, row, EVENT_CODE[name]))
        kept.sort()
        item_rows = np.array([row for _, _, row, _ in kept], dtype=np.int32)
        places, hidden = standing(item_rows, [code for *_, code in kept], [at for at, *_ in kept])
        stands = [kept[place] for place in places.tolist()]
        last = stands[-1][0] + 1 if stands else clock
        history = Histories.of(
            item_rows[places], [code for *_, code in stands], [at for at, *_ in stands],
            max(clock, last),
        )  # fmt: skip
        return history, hidden

    def _known_rows(self, item_ids: Sequence[str]) -> Int32s:
        rows = self.rows_of(item_ids)
        for item_id, row in zip(item_ids, rows.tolist(), strict=True):
            if row < 0:
                raise DataError(
                    "the catalogue does not hold the item", field="item_ids", value=item_id,
                    fix="leave it out; rank an item that comes as text with `rank` and `NewItems`",
                )  # fmt: skip
        return rows

    def _scored(self, rows: Sequence[int], scores: Sequence[float]) -> list[ScoredItem]:
        named = self.names(rows)
        return [ScoredItem(*name, score) for name, score in zip(named, scores, strict=True)]


def _microseconds(moment: dt.datetime) -> int:
    """Since 1970; a moment without a zone counts as UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
    return int(aware.timestamp() * 1e6)
