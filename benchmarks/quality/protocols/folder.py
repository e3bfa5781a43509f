"""A folder -> a benchmark: chooses the protocol and applies it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from benchmarks.quality.protocols.benchmark import IS_TEST, Benchmark
from benchmarks.quality.protocols.canonical import (
    canonical_events,
    canonical_items,
    filter_events,
    read_table,
)
from benchmarks.quality.protocols.exposures import published_exposures, tells_whole_histories
from benchmarks.quality.protocols.leave_one_out import day_cuts, leave_one_out
from benchmarks.quality.protocols.parts import LABEL, read_parts
from benchmarks.quality.protocols.published import lay_out_splits
from benchmarks.quality.protocols.time_cuts import time_cuts
from recsys.errors import DataError
from recsys.schema import EVENT_TYPES, Col

_EXPOSURE = (Col.user, Col.item, Col.timestamp, LABEL)
_ITEM_COLUMNS = (
    Col.item, Col.title, Col.description, Col.brand, Col.category, Col.tags, Col.price,
)  # fmt: skip


def open_benchmark(
    folder: Path,
    *,
    protocol: str | None = None,
    where: str | None = None,
    targets: Sequence[str] = (),
    valid: dt.datetime | None = None,
    test: dt.datetime | None = None,
) -> Benchmark:
    """Read a folder under a protocol.

    Args:
        folder: holds `items.parquet`, `events.parquet` and, for `splits`, `splits.parquet`.
        protocol: default: `splits` if the file is there, `time` if there are timestamps, else
            `leave_one_out`.
        where: an SQL condition over the columns of events and items; other events are left out.
        targets: canonical names of the events to predict; default: the strongest type there is.
        valid: cut of the time protocol; default: at 80 % of the target events.
        test: likewise, at 90 %.

    Raises:
        DataError: a file or a column is missing, or the protocol does not fit the data.
    """
    log = _read(folder, protocol, where)
    targets = targets or [_strongest_type(log.events)]
    if log.protocol == "time":
        return _by_time(log, targets, valid, test)
    if log.protocol == "leave_one_out":
        laid = leave_one_out(log.events, targets, log.has_times)
        return Benchmark(laid, log.items, day_cuts(), tuple(targets), log.protocol, notes=log.notes)
    return _by_splits(log, targets)


@dataclass(frozen=True)
class _Log:
    """A folder's tables in canonical form.

    Attributes:
        folder: they were read from.
        protocol: chosen.
        events, items: canonical.
        splits: rows of the split that the folder publishes; None where none is asked for.
        labelled: the events that carry a label; None without labels or timestamps.
        has_times: every event has a timestamp.
        notes: what was done to the data; later steps add theirs.
    """

    folder: Path
    protocol: str
    events: pl.DataFrame
    items: pl.DataFrame
    splits: pl.DataFrame | None
    labelled: pl.DataFrame | None
    has_times: bool
    notes: list[str]


def _read(folder: Path, protocol: str | None, where: str | None) -> _Log:
    """Read the tables and choose the protocol, if none is given; see `open_benchmark`."""
    notes: list[str] = []
    events, items = read_table(folder, "events"), read_table(folder, "items")
    has_times = Col.timestamp in events.columns and events[Col.timestamp].null_count() == 0
    has_splits = (folder / "splits.parquet").is_file()
    if protocol is None:
        protocol = "splits" if has_splits else "time" if has_times else "leave_one_out"
    splits = None
    if has_splits and protocol == "splits":
        splits = read_parts(read_table(folder, "splits"), folder / "splits.parquet", notes)
    items = canonical_items(items, events, splits)
    events = filter_events(canonical_events(events, notes), items, where, notes)
    labelled = None
    if LABEL in events.columns:
        labelled = events.select(_EXPOSURE) if has_times else None
        events = events.drop(LABEL)
    items = items.select([name for name in items.columns if name in _ITEM_COLUMNS])
    return _Log(folder, protocol, events, items, splits, labelled, has_times, notes)


def _strongest_type(events: pl.DataFrame) -> str:
    present = set(events[Col.event_type].unique())
    return next(name for name in reversed(EVENT_TYPES) if name in present)


def _by_time(
    log: _Log, targets: Sequence[str], valid: dt.datetime | None, test: dt.datetime | None
) -> Benchmark:
    if not log.has_times:
        raise DataError(
            "the time protocol needs a timestamp in every row",
            where=log.folder / "events.parquet", field=Col.timestamp,
            fix="use --protocol leave_one_out",
        )  # fmt: skip
    cuts = time_cuts(log.events, targets, valid, test)
    exposures = None
    if log.labelled is not None:
        is_test = (pl.col(Col.timestamp) >= cuts["test"]).alias(IS_TEST)
        exposures = log.labelled.with_columns(is_test)
    return Benchmark(
        log.events, log.items, cuts, tuple(targets), log.protocol, exposures=exposures,
        notes=log.notes,
    )  # fmt: skip


def _by_splits(log: _Log, targets: Sequence[str]) -> Benchmark:
    splits, labelled, notes = log.splits, log.labelled, log.notes
    if splits is None:
        raise DataError(
            "the protocol `splits` needs its file", where=log.folder / "splits.parquet",
            fix="use --protocol time or leave_one_out",
        )  # fmt: skip
    laid, rows, cuts = lay_out_splits(splits, log.events, targets, notes)
    exposures, whole = None, False
    # Without labels in the file, or with days laid out by order alone, exposures mean nothing.
    is_told = log.has_times and cuts != day_cuts() and LABEL in splits.columns
    if labelled is not None and is_told:
        exposures = published_exposures(splits, labelled)
        whole = tells_whole_histories(splits, exposures)
    return Benchmark(
        laid, log.items, cuts, tuple(targets), log.protocol, rows, exposures, whole, notes
    )
