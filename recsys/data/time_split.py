"""The time split: baskets of a window of time to be predicted, each from the history before it.

Time never leaks: an event at or after a question's moment is in none of its histories.

Legend: U users, E events of all users together, Q questions, R relevant items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from recsys.arrays import Bools, Int8s, Int32s, Int64s
from recsys.data.histories import Histories, UserEvents
from recsys.data.moments import first_of_moments


@dataclass(frozen=True)
class Questions:
    """Baskets to predict: the history strictly before each, and its relevant items.

    The histories of one user's baskets overlap, so they are kept as ranges of shared events and
    copied out only by `histories`: take a slice first.

    Attributes:
        user_index: [Q] index of the user in the `UserEvents` they were made from.
        baskets: [Q] number of the basket within the user.
        item_rows, event_codes, timestamps: [E], events of all users.
        starts, stops: [Q] the history of question q is events `starts[q]:stops[q]`.
        now: [Q] the basket's moment.
        relevant: [R] item rows, distinct within a question, ascending.
        relevant_offsets: [Q + 1].
    """

    user_index: Int64s
    baskets: Int32s
    item_rows: Int32s
    event_codes: Int8s
    timestamps: Int64s
    starts: Int64s
    stops: Int64s
    now: Int64s
    relevant: Int32s
    relevant_offsets: Int64s

    def __len__(self) -> int:
        return len(self.user_index)

    @property
    def histories(self) -> Histories:
        """The Q histories, as of just before each basket's moment; copied out."""
        return Histories.gather(
            self.item_rows, self.event_codes, self.timestamps, self.starts, self.stops, self.now
        )

    def __getitem__(self, picked: slice) -> Questions:
        start, stop, _ = picked.indices(len(self))
        low, high = self.relevant_offsets[start], self.relevant_offsets[max(start, stop)]
        return replace(
            self,
            user_index=self.user_index[start:stop],
            baskets=self.baskets[start:stop],
            starts=self.starts[start:stop],
            stops=self.stops[start:stop],
            now=self.now[start:stop],
            relevant=self.relevant[low:high],
            relevant_offsets=self.relevant_offsets[start : max(start, stop) + 1] - low,
        )

    def where(self, keep: Bools) -> Questions:
        """The questions for which `keep` [Q] holds."""
        return self.take(np.flatnonzero(keep))

    def by_time(self) -> Questions:
        """The same questions in the order of time."""
        return self.take(np.argsort(self.now, kind="stable"))

    def take(self, picked: Int64s) -> Questions:
        """Some questions, in the order given."""
        old = self.relevant_offsets
        lengths = np.diff(old)[picked]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        index = np.arange(offsets[-1]) + np.repeat(old[:-1][picked] - offsets[:-1], lengths)
        return replace(
            self,
            user_index=self.user_index[picked],
            baskets=self.baskets[picked],
            starts=self.starts[picked],
            stops=self.stops[picked],
            now=self.now[picked],
            relevant=self.relevant[index],
            relevant_offsets=offsets,
        )

    def batches(self, size: int) -> Iterator[Questions]:
        """Consecutive slices of at most `size` questions."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


def ask(
    users: UserEvents, *, start: int, end: int | None, target_codes: Sequence[int]
) -> Questions:
    """Every (user, basket) with a target event in [start, end): its history, its relevant items.

    Args:
        users: whole event lists; events of any time.
        start: begin of the window, microseconds.
        end: its end, not in it; None leaves it open.
        target_codes: event codes that make an item relevant.
    """
    user_of_event = np.repeat(np.arange(len(users)), np.diff(users.offsets))
    in_window = _in_window(users, start, end)
    target = np.flatnonzero(in_window & np.isin(users.event_codes, np.asarray(target_codes)))
    frame = (
        pl.DataFrame(
            {
                "user": user_of_event[target],
                "basket": users.baskets[target],
                "item": users.item_rows[target],
                "us": users.timestamps[target],
                "start": _moment_starts(users)[target],
            }
        )
        .unique(["user", "basket", "item"])
        .sort("user", "basket", "item")
    )
    baskets = frame.group_by("user", "basket", maintain_order=True).agg(
        pl.col("us", "start").first(), pl.len().alias("num_relevant")
    )
    user_index = baskets["user"].to_numpy().astype(np.int64)
    now = baskets["us"].to_numpy().astype(np.int64)
    return Questions(
        user_index,
        baskets["basket"].to_numpy().astype(np.int32),
        users.item_rows,
        users.event_codes,
        users.timestamps,
        users.offsets[user_index],
        baskets["start"].to_numpy().astype(np.int64),
        now,
        frame["item"].to_numpy().astype(np.int32),
        np.concatenate([[0], np.cumsum(baskets["num_relevant"].to_numpy())]).astype(np.int64),
    )


def ask_shown(users: UserEvents, *, start: int, end: int | None) -> Questions:
    """Every event in [start, end) as a question of its own: its item, and the history before it.

    Events of one moment never see each other. The questions are in the order of the events, by user
    and time. `relevant` holds the item shown, whether it was a target event or not.

    Args:
        users: whole event lists; events of any time.
        start: begin of the window, microseconds.
        end: its end, not in it; None leaves it open.
    """
    picked = np.flatnonzero(_in_window(users, start, end))
    user_index = np.searchsorted(users.offsets, picked, side="right") - 1
    now = users.timestamps[picked]
    return Questions(
        user_index,
        users.baskets[picked],
        users.item_rows,
        users.event_codes,
        users.timestamps,
        users.offsets[user_index],
        _moment_starts(users)[picked],
        now,
        users.item_rows[picked],
        np.arange(len(picked) + 1),
    )


def _in_window(users: UserEvents, start: int, end: int | None) -> Bools:
    """[E] whether each event lies in [start, end)."""
    late = users.timestamps >= start
    return late if end is None else late & (users.timestamps < end)


def _moment_starts(users: UserEvents) -> Int64s:
    """[E] position of the first event of each event's moment."""
    is_first = first_of_moments(users)
    return np.maximum.accumulate(np.where(is_first, np.arange(len(is_first)), 0))
