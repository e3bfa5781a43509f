"""The interface of every model that ranks a catalogue, and the log that baselines are fitted on.

Legend: Q queries, I items of the catalogue, T distinct texts, H width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from recsys.arrays import Bools, Float32s, Int32s
from recsys.data.histories import Histories, UserEvents
from recsys.data.moments import Moments, moments_of
from recsys.features.popularity import DailyCounts


class Recommends(Protocol):
    """A fitted model: plain arrays, so that Ray ships it and nothing needs pickle."""

    @property
    def name(self) -> str:
        """The name that recipes and reports know the model by."""
        ...

    def scores(self, histories: Histories) -> Float32s:
        """[Q, I] finite scores of all items for each query, higher is better.

        A query without history gets the order of popularity. Events that share a moment have no
        order: permuting them changes nothing.
        """
        ...


@dataclass(frozen=True)
class TrainingLog:
    """What a baseline learns from: exactly the events given, the caller cuts the time.

    Attributes:
        events: of any type, oldest first within a user.
        num_items: I; events of items outside rows 0..I-1 are left out.
        target_codes: event codes of the target events.
        text_vectors: [T, H] float32, an untuned language model's vector of each distinct text; for
            `zero_shot` alone, as is `text_rows`.
        text_rows: [I] int32, each item's row in `text_vectors`.
        daily_counts: of every day, later ones included: a question uses those before its day; for
            `trending` alone.
        count_every_days: days from one count to the next; None: nothing is counted after training.
    """

    events: UserEvents
    num_items: int
    target_codes: Sequence[int]
    text_vectors: Float32s | None = None
    text_rows: Int32s | None = None
    daily_counts: DailyCounts | None = None
    count_every_days: int | None = None

    @cached_property
    def moments(self) -> Moments:
        """The events by moments; gathered once for all that count pairs of items."""
        return moments_of(self.events, self.num_items, self.target_codes)

    @property
    def is_known(self) -> Bools:
        """[E] whether each event's item is in the catalogue."""
        return (self.events.item_rows >= 0) & (self.events.item_rows < self.num_items)

    @property
    def is_target(self) -> Bools:
        """[E] whether each event is a target event of an item in the catalogue."""
        return np.isin(self.events.event_codes, np.asarray(self.target_codes)) & self.is_known
