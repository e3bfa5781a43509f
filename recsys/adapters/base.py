"""What every adapter does: list the raw log's parts, read one part, read the items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import polars as pl

from recsys.schema import EVENTS, ITEMS, Col

#: Rows a task reads at most, in whole row groups.
ROWS_PER_PART = 2_000_000


@dataclass(frozen=True)
class Part:
    """A piece of the raw log that one task reads: row groups [first, last) of a file."""

    path: str
    first_group: int
    last_group: int
    num_rows: int


class Adapter(Protocol):
    """Raw files -> canonical columns. Row checks come afterwards and are not its business."""

    def parts(self) -> list[Part]:
        """The log's parts, in a fixed order; raises DataError if there is no usable file."""
        ...

    def read_events(self, part: Part) -> pl.DataFrame:
        """The part's rows in the columns of `schema.EVENTS`, bad rows included.

        Where a value could not be read, it is null, and a column `unreadable` says what stood
        there; without such values there is no such column. The same holds for items.
        """
        ...

    def read_items(self) -> pl.DataFrame:
        """All items in the columns of `schema.ITEMS`."""
        ...


def split_into_parts(path: str, group_rows: list[int]) -> list[Part]:
    """Consecutive row groups of a file, gathered into parts of about `ROWS_PER_PART` rows."""
    parts, first, rows = [], 0, 0
    for group, num_rows in enumerate(group_rows):
        if rows and rows + num_rows > ROWS_PER_PART:
            parts.append(Part(path, first, group, rows))
            first, rows = group, 0
        rows += num_rows
    if rows:
        parts.append(Part(path, first, len(group_rows), rows))
    return parts


EVENTS_NEEDED = (Col.user, Col.item, Col.event_type, Col.timestamp)
ITEMS_NEEDED = (Col.item,)

__all__ = [
    "EVENTS", "EVENTS_NEEDED", "ITEMS", "ITEMS_NEEDED", "Adapter", "Part", "split_into_parts",
]  # fmt: skip
