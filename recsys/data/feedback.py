"""Feedback of the service for the next model: live events, impressions, erased users.

In the run's folder, written by the service (impressions) and `compact` (the rest), read by jobs:

    feedback/events/{date}-{hex}.parquet                     canonical events, users pseudonymous
    feedback/impressions/{replica}/{date}-{hex}.parquet      segments of `schema.IMPRESSIONS`
    feedback/{events,impressions}/{date}-{hex}-merged.parquet  many files of a day in one
    feedback/erased.parquet                                  tombstones

A file is whole or not there. A merged file names in its footer the files it stands for; until they
are deleted, `finished` leaves them out, so that a merge that breaks off doubles nothing.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.errors import DataError
from recsys.schema import ALL_EVENT_TYPES, ERASED, EVENTS, EVENTS_OPTIONAL, TIMESTAMP, Col
from recsys.state import StateEvent, Tombstone, is_erased
from recsys.storage.location import Location, Place
from recsys.storage.outputs import whole_file, write_json
from recsys.storage.seals import json_sha256

_STANDS_FOR, _MERGED = b"raycommend.stands_for", "-merged.parquet"
#: From so many files on, today's are merged too: a busy replica writes one a second.
_MANY = 500
_DATE_CHARS = len("2026-01-31")
#: Records which files were checked for which erased users.
_CHECKED = "checked.json"
_ERASED = "erased.parquet"
#: Columns that tell whether a row is older than its user's erasure; impressions have no type.
_TOLD = (Col.user, Col.timestamp, Col.item, Col.event_type)
#: An unfinished file of that age was left by a killed process.
_STALE_S = 86_400.0


@dataclass(frozen=True)
class Feedback:
    """The feedback folder of a run; it need not be there."""

    folder: Path

    @staticmethod
    def of(run: Path) -> Feedback:
        """The feedback of a run's folder."""
        return Feedback(run / "feedback")

    @property
    def events(self) -> Path:
        """Folder of the live events."""
        return self.folder / "events"

    @property
    def impressions(self) -> Path:
        """Folder of the impressions; of the segments in folders below it, one a replica."""
        return self.folder / "impressions"

    @contextmanager
    def locked(self, *, exclusive: bool) -> Iterator[None]:
        """Keep others from changing files meanwhile: one writer, or any number of readers.

        Args:
            exclusive: write. Where anybody else holds the lock, this is refused; a reader waits.

        Raises:
            DataError: another process holds it.
        """
        if not exclusive and not self.folder.is_dir():
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
            except BlockingIOError:
                raise DataError(
                    "in use: another `compact` writes here, or `prepare` reads", where=self.folder,
                    fix="wait until it has ended, then run the same command again",
                ) from None  # fmt: skip
            yield

    def erased(self) -> dict[str, Tombstone]:
        """The tombstones, by pseudonym."""
        path = self.folder / _ERASED
        if not path.is_file():
            return {}
        table = pq.read_table(path)
        at = table[Col.erased_at].cast(pa.int64()).to_pylist()
        until: list[int] = at
        ahead: list[list[str]] = [[] for _ in at]
        if Col.erased_until in table.column_names:  # an earlier release knew of one time
            until = table[Col.erased_until].cast(pa.int64()).to_pylist()
            ahead = table["ahead"].to_pylist()
        facts = zip(at, until, map(frozenset, ahead), strict=True)
        return dict(zip(table[Col.user].to_pylist(), starmap(Tombstone, facts), strict=True))

    def bring_erased(self, location: Location) -> None:
        """Have the tombstones here that lie in a store.

        Raises:
            StorageError: the store fails.
        """
        location.fetch(_ERASED, self.folder / _ERASED)

    def unchecked(self, files: Sequence[Path], erased: Mapping[str, Tombstone]) -> list[Path]:
        """The files that were not yet checked for all of these erased users."""
        path = self.folder / _CHECKED
        seen = json.loads(path.read_text()) if path.is_file() else {}
        done = set(seen["files"]) if seen.get("erased") == _digest(erased) else set()
        return [file for file in files if _name(file, self.folder) not in done]

    def mark_checked(self, files: Sequence[Path], erased: Mapping[str, Tombstone]) -> None:
        """Record that these files hold no row of these erased users; drop earlier records."""
        names = [_name(file, self.folder) for file in files]
        write_json(self.folder / _CHECKED, {"erased": _digest(erased), "files": names})

    def write_erased(self, erased: Mapping[str, Tombstone]) -> None:
        """Replace the tombstones."""
        users, left = sorted(erased), [erased[user] for user in sorted(erased)]
        table = pa.table(
            [
                pa.array(users, pa.string()),
                pa.array([each.at_us for each in left], pa.int64()).cast(TIMESTAMP),
                pa.array([each.until_us for each in left], pa.int64()).cast(TIMESTAMP),
                pa.array([sorted(each.ahead) for each in left], pa.list_(pa.string())),
            ],
            schema=ERASED,
        )
        with whole_file(self.folder / _ERASED) as aside:
            pq.write_table(table, aside)


def events_table(events: Sequence[StateEvent]) -> pa.Table:
    """Events of a store as canonical ones; fields that the sender left out are null."""
    known = {
        Col.user: pa.array([e.user_id for e in events], pa.string()),
        Col.item: pa.array([e.item_id for e in events], pa.string()),
        Col.event_type: pa.array([ALL_EVENT_TYPES[e.event_code] for e in events], pa.string()),
        Col.timestamp: pa.array([e.timestamp for e in events], pa.int64()).cast(TIMESTAMP),
    }
    details = [json.loads(e.details) if e.details else {} for e in events]
    for field in EVENTS_OPTIONAL:
        values = [_fitting(told.get(field.name), field.type) for told in details]
        known[field.name] = pa.array(values, field.type)
    return pa.table([known[field.name] for field in EVENTS], schema=EVENTS)


def _fitting(value: Any, kind: pa.DataType) -> Any:
    """A detail of an event, or None where no column of its type holds it: the event counts."""
    if pa.types.is_integer(kind) and value is not None:
        return value if abs(value) < 2 ** (kind.bit_width - 1) else None
    return value


def without_logged(events: pl.DataFrame, is_live: str) -> pl.DataFrame:
    """The events less live ones that the log holds too: same user, item, type and time.

    The log may know their session, so equal rows are not enough.

    Args:
        events: canonical events.
        is_live: column that tells a live event from one of the log.
    """
    live = pl.col(is_live)
    if not events[is_live].any():
        return events
    same = [Col.user, Col.item, Col.event_type, Col.timestamp]
    logged = events.filter(~live)
    return pl.concat([logged, events.filter(live).join(logged, on=same, how="anti")])


def write_segment(folder: Place, table: pa.Table) -> None:
    """Write a file of its own, whole or not at all, in a folder or in a store."""
    name = new_file_name()
    if isinstance(folder, Path):
        with whole_file(folder / name) as aside:
            pq.write_table(table, aside, compression="zstd")
        return
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    folder.write(name, buffer.getvalue().to_pybytes())


def new_file_name() -> str:
    """A name that no other file has, beginning with today's date, UTC."""
    return f"{dt.datetime.now(dt.UTC):%Y-%m-%d}-{uuid.uuid4().hex}.parquet"


def finished(folder: Path) -> list[Path]:
    """The files in and below a folder whose rows count, in a fixed order.

    Raises:
        DataError: one of them is no readable Parquet file.
    """
    files = _files(folder)
    replaced = {name for path in files for name in _stands_for(path)}
    return [path for path in files if _name(path, folder) not in replaced]


def count_rows(files: Sequence[Path]) -> int:
    """Rows in all of them."""
    return sum(pq.read_metadata(path).num_rows for path in files)


def group_rows(path: Path) -> list[int]:
    """Rows of each row group of a file."""
    with _reading(path):
        metadata = pq.read_metadata(path)
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def read_rows(path: str, first_group: int, last_group: int, schema: pa.Schema) -> pl.DataFrame:
    """Row groups [first, last) of a file in the columns of a schema; one that it lacks is null."""
    with _reading(Path(path)), pq.ParquetFile(path) as file:
        return pl.DataFrame(_filled(file.read_row_groups(range(first_group, last_group)), schema))


def tidy(folder: Path) -> None:
    """Delete what a merge or a killed process left behind."""
    kept = set(finished(folder))
    for path in _files(folder):
        if path not in kept:
            path.unlink()
    for path in [*folder.rglob(".*.part"), *folder.glob("*/")]:
        with suppress(OSError):  # a folder that is not empty, a file that is gone
            if time.time() - path.stat().st_mtime > _STALE_S:
                path.rmdir() if path.is_dir() else path.unlink()


def merge_days(folder: Path, today: dt.date) -> None:
    """Merge the files of each day before `today` into one, in `folder` itself; today's if many.

    A merged file that is there already and what came after it are merged anew.
    """
    days = defaultdict(list)
    for path in finished(folder):
        days[path.name[:_DATE_CHARS]].append(path)
    for day, files in days.items():
        if len(files) > (1 if day < today.isoformat() else _MANY):
            target = folder / f"{day}-{uuid.uuid4().hex}{_MERGED}"
            _write(target, files, stands_for=[_name(path, folder) for path in files])
            for path in files:
                path.unlink()


def erase_rows(files: Sequence[Path], erased: Mapping[str, Tombstone]) -> int:
    """Rewrite the files that hold rows of erased users, from before their erasure.

    Returns:
        How many rows were removed.
    """
    if not erased:
        return 0

    def keep(rows: pa.Table) -> pa.Array:
        known = [name for name in _TOLD if name in rows.column_names]
        frame = pl.DataFrame(rows.select(known))
        return (~is_erased(frame, erased)).to_arrow()

    removed = 0
    for path in files:
        with _reading(path):
            known = [name for name in _TOLD if name in pq.read_schema(path).names]
            rows = pq.read_table(path, columns=known, partitioning=None)
        num_erased = len(rows) - (pc.sum(keep(rows)).as_py() or 0)
        if num_erased:
            _write(path, [path], stands_for=_stands_for(path), keep=keep)
            removed += num_erased
    return removed


def _write(
    target: Path,
    files: Sequence[Path],
    *,
    stands_for: Sequence[str],
    keep: Callable[[pa.Table], pa.Array] | None = None,
) -> None:
    """Write the rows of some files into one, a row group in memory at a time."""
    schema = pa.schema([])
    for path in files:
        with _reading(path):
            schema = pa.unify_schemas([schema, pq.read_schema(path).remove_metadata()])
    schema = schema.with_metadata({_STANDS_FOR: json.dumps(list(stands_for)).encode()})
    with (
        whole_file(target) as aside,
        pq.ParquetWriter(aside, schema, compression="zstd") as out,
    ):
        for path in files:
            with _reading(path), pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group)
                    rows = rows if keep is None else rows.filter(keep(rows))
                    out.write_table(_filled(rows, schema))


def _filled(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows in the columns of a schema; those that an earlier release did not write are null."""
    for name in set(schema.names) - set(rows.column_names):
        rows = rows.append_column(name, pa.nulls(len(rows), schema.field(name).type))
    return rows.select(schema.names).cast(schema)


def _digest(erased: Mapping[str, Tombstone]) -> str:
    facts = [[user, each.at_us, each.until_us, sorted(each.ahead)] for user, each in erased.items()]
    return json_sha256(sorted(facts))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.parquet") if not path.name.startswith("."))


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _stands_for(path: Path) -> list[str]:
    if not path.name.endswith(_MERGED):
        return []
    with _reading(path):
        return list(json.loads(pq.read_metadata(path).metadata[_STANDS_FOR]))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except pa.ArrowException as error:
        raise DataError(
            f"not a readable Parquet file: {error}", where=path,
            fix="restore it from a copy, or remove it",
        ) from None  # fmt: skip
