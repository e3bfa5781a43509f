"""The adapter interface: list the raw log's parts, read one part, read the items."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import polars as pl

from recsys.data.adapters.spellings import IdFiles
from recsys.errors import DataError
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


@dataclass(frozen=True)
class Scan:
    """Result of reading folders and footers, before any row is read.

    Attributes:
        parts: of the log, in a fixed order.
        left_out: table -> why a file there is no data -> how many files, see `listing`.
        problems: what stops a run.
        warnings: what does not, in words.
        broken: tables, `events` or `items`, that have problems.
        id_files: of each id column, which files hold it as which kind of type.
    """

    parts: list[Part]
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)
    problems: list[DataError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    broken: frozenset[str] = frozenset()
    id_files: list[IdFiles] = field(default_factory=list)


@dataclass(frozen=True)
class Items:
    """The items table.

    Attributes:
        table: the columns of `schema.ITEMS`, bad rows included.
        num_superseded: rows left out because a newer snapshot holds the item too.
    """

    table: pl.DataFrame
    num_superseded: int = 0


class Adapter(Protocol):
    """Raw files to canonical columns. Row checks come afterwards, elsewhere."""

    def parts(self) -> list[Part]:
        """The log's parts, in a fixed order; raises DataError if there is no usable file."""
        ...

    def scan(self) -> Scan:
        """The files found and all their problems; raises nothing for those."""
        ...

    def read_events(self, part: Part) -> pl.DataFrame:
        """The part's rows in the columns of `schema.EVENTS`, bad rows included.

        Where a value could not be read, it is null, and a column `unreadable` says what stood
        there; without such values there is no such column. The same holds for items.
        """
        ...

    def version(self, path: str) -> str:
        """Size and time of the last change of a part's file: another one, another file."""
        ...

    def read_needed(self, part: Part) -> pl.DataFrame:
        """Of the part's needed columns (`EVENTS_NEEDED`) those that can be read; see above."""
        ...

    def read_items(self) -> Items:
        """All items; of one that stands in several snapshots the newest row."""
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
    "EVENTS", "EVENTS_NEEDED", "ITEMS", "ITEMS_NEEDED", "Adapter", "Items", "Part", "Scan",
    "split_into_parts",
]  # fmt: skip
