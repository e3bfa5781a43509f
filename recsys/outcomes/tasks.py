"""The tasks of the steps in `joining`: each makes one piece."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow.parquet as pq

from recsys.config import Recipe
from recsys.data.adapters import Part, open_adapter
from recsys.outcomes.attribution import DOUBLE_EXPOSURES, FIRST, exposures_table, join_users
from recsys.outcomes.by_request import OWNER, join_requests, with_exposure_columns
from recsys.outcomes.rows import SHOWN, Taken, Taking
from recsys.outcomes.so_far import DAY, added, day_of, item_counts, item_days, with_item_counts
from recsys.preparation.kept import PREFIX_CHARS, USERS_FILE, Kept
from recsys.preparation.split import live_rows
from recsys.schema import EVENTS, EXPOSURES, IMPRESSIONS, Col
from recsys.state import Tombstone
from recsys.storage.seals import file_sha256

#: Of the pieces and of `exposures/`: a change of their formats or of what makes them needs another.
FORMAT: Final = 1
#: Of what a part is: of the log, live events, answered lists.
LOG_KIND, EVENTS_KIND, LISTS_KIND = "log", "events", "lists"
_ITEMS_FILE: Final = "items.parquet"

Row = dict[str, Any]


def of_requests(number: int) -> str:
    """Name of the file with rows of a bucket of requests."""
    return f"requests-{number:05d}.parquet"


def of_users(number: int) -> str:
    """Name of the file with rows of a bucket of owners."""
    return f"users-{number:05d}.parquet"


def day_file(day: str) -> str:
    """Name of the file with the exposures of a UTC day."""
    return f"{day}.parquet"


@dataclass(frozen=True)
class SplitRows:
    """One part of the log or of the feedback -> rows by bucket.

    Attributes:
        recipe: of the run.
        key: of the pseudonyms.
        kept: the pieces.
        num_buckets: that requests, and owners, fall into.
        latest_us: a later timestamp lies in the future.
        erased: tombstones, by pseudonym.
    """

    recipe: Recipe
    key: bytes
    kept: Kept
    num_buckets: int
    latest_us: int
    erased: Mapping[str, Tombstone]

    def __call__(self, row: Row) -> Row:
        """Split the part that a row names."""
        with self.kept.at_work() as kept:
            kept.make(kept.parts / row["key"], partial(self._split, row))
        return {"order": row["order"]}

    def _split(self, row: Row, folder: Path) -> Row:
        taken = self._take(row)
        rows = with_exposure_columns(taken.rows)
        asked = pl.col(Col.request).is_not_null()
        _write_users(folder, taken.users)
        shown = int((rows[Col.event_type] == SHOWN).sum())
        return {
            "requests": _write_buckets(
                folder, rows.filter(asked), Col.request, self.num_buckets, of_requests
            ),
            "users": _write_buckets(folder, rows.filter(~asked), OWNER, self.num_buckets, of_users),
            # What `Kept.drop_outdated` asks for.
            "future_us": taken.future_us,
            "coverage": json.dumps({"last_us": taken.last_us}),
            "counts": {
                "exposures_in": shown, "outcomes_in": rows.height - shown,
                "unusable": taken.num_unusable, "erased": taken.num_erased,
            },
        }  # fmt: skip

    def _take(self, row: Row) -> Taken:
        data, kind = self.recipe.data, row["kind"]
        taking = Taking(data.event_types, self.key, self.erased, self.latest_us)
        part = Part(row["path"], row["first_group"], row["last_group"], row["num_rows"])
        if kind == LISTS_KIND:
            return taking.lists(live_rows(self.recipe, part, IMPRESSIONS))
        if kind == EVENTS_KIND:
            return taking.events(live_rows(self.recipe, part, EVENTS), live=True)
        return taking.events(open_adapter(data).read_events(part), live=False)


@dataclass(frozen=True)
class JoinRequests:
    """One bucket of requests -> its rows by bucket of their owners, joined."""

    kept: Kept
    num_buckets: int

    def __call__(self, row: Row) -> Row:
        """Join the bucket that a row names."""
        with self.kept.at_work() as kept:
            kept.make(kept.folder / "requests" / row["key"], partial(self._join, row, kept))
        return {"order": row["order"]}

    def _join(self, row: Row, kept: Kept, folder: Path) -> Row:
        rows, num_double = join_requests(_read(kept, row["files"]))
        _write_users(folder, rows[Col.user])
        return {
            "users": _write_buckets(folder, rows, OWNER, self.num_buckets, of_users),
            "counts": {DOUBLE_EXPOSURES: num_double},
        }


@dataclass(frozen=True)
class JoinUsers:
    """One bucket of owners -> its exposures by day, and the counts of their items."""

    kept: Kept
    window_h: float

    def __call__(self, row: Row) -> Row:
        """Join the bucket that a row names."""
        with self.kept.at_work() as kept:
            kept.make(kept.buckets / row["key"], partial(self._join, row, kept))
        return {"order": row["order"]}

    def _join(self, row: Row, kept: Kept, folder: Path) -> Row:
        exposures, counts = join_users(_read(kept, row["files"]), self.window_h)
        _write_users(folder, exposures[Col.user])
        item_days(exposures).write_parquet(folder / _ITEMS_FILE)
        return {
            "days": _write_days(folder, exposures.with_columns(day_of(Col.timestamp))),
            "items": file_sha256(folder / _ITEMS_FILE),
            "counts": {**counts, "exposures": exposures.height},
        }


@dataclass(frozen=True)
class AddItems:
    """The counts of items of all buckets -> those as of each day, a file a day."""

    kept: Kept

    def __call__(self, row: Row) -> Row:
        """Add up the buckets that a row names."""
        with self.kept.at_work() as kept:
            kept.make(kept.folder / "totals" / row["key"], partial(self._add, row, kept))
        return {"order": row["order"]}

    def _add(self, row: Row, kept: Kept, folder: Path) -> Row:
        pieces = [kept.buckets / key for key in row["buckets"]]
        kept.bring(pieces, lambda name: name == _ITEMS_FILE)
        tables = [pl.read_parquet(piece / _ITEMS_FILE, glob=False) for piece in pieces]
        return {"days": _write_days(folder, item_counts(added(tables))) if tables else {}}


@dataclass(frozen=True)
class WriteDay:
    """The exposures of one day, from all buckets, a bucket in memory at a time."""

    kept: Kept

    def __call__(self, row: Row) -> Row:
        """Write the day that a row names."""
        with self.kept.at_work() as kept:
            kept.make(kept.folder / "days" / row["key"], partial(self._write, row, kept))
        return {"order": row["order"]}

    def _write(self, row: Row, kept: Kept, folder: Path) -> Row:
        name, totals = day_file(row["day"]), kept.folder / "totals" / row["totals"]
        files = [kept.folder / file for file in row["files"]]
        kept.bring([totals, *(path.parent for path in files)], lambda file: file == name)
        items = pl.read_parquet(totals / name, glob=False)
        users, counts = [], dict.fromkeys(["exposures", *(flag for flag, _ in FIRST.values())], 0)
        with pq.ParquetWriter(folder / name, EXPOSURES, compression="zstd") as out:
            for path in files:
                rows = pl.read_parquet(path, glob=False)
                rows = with_item_counts(rows.drop(DAY), items)
                out.write_table(exposures_table(rows))
                users.append(rows[Col.user])
                counts["exposures"] += rows.height
                for flag, _ in FIRST.values():
                    counts[flag] += int(rows[flag].sum())
        _write_users(folder, pl.concat(users))
        return {"counts": counts}


def _read(kept: Kept, files: Sequence[str]) -> pl.DataFrame:
    """The rows of some files of pieces, all of one name."""
    paths = [kept.folder / name for name in files]
    kept.bring([path.parent for path in paths], lambda name: name == paths[0].name)
    return pl.concat([pl.read_parquet(path, glob=False) for path in paths])


def _write_buckets(
    folder: Path, rows: pl.DataFrame, by: str, num_buckets: int, name: Callable[[int], str]
) -> dict[int, str]:
    """Write rows by the bucket of a pseudonym; the hash of each file."""
    bucket = pl.col(by).str.slice(0, 8).str.to_integer(base=16, dtype=pl.Int64) % num_buckets
    hashes = {}
    numbered = rows.with_columns(bucket.alias("bucket"))
    for (number,), frame in sorted(
        numbered.partition_by("bucket", as_dict=True, include_key=False).items()
    ):
        path = folder / name(int(number))
        frame.write_parquet(path)
        hashes[int(number)] = file_sha256(path)
    return hashes


def _write_days(folder: Path, rows: pl.DataFrame) -> dict[str, str]:
    """Write rows by their column of days; the hash of each file."""
    hashes = {}
    for (day,), frame in rows.partition_by(DAY, as_dict=True).items():
        path = folder / day_file(str(day))
        frame.write_parquet(path)
        hashes[str(day)] = file_sha256(path)
    return hashes


def _write_users(folder: Path, users: pl.Series) -> None:
    """Write whose rows a piece holds, so that it can be forgotten, see `Kept.forget`."""
    told = users.drop_nulls().str.slice(0, PREFIX_CHARS).unique().sort().rename(Col.user)
    told.to_frame().write_parquet(folder / USERS_FILE)
