"""A folder -> a benchmark: chooses the protocol and applies it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
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
    if not targets:
        present = set(events[Col.event_type].unique())
        targets = [next(name for name in reversed(EVENT_TYPES) if name in present)]
    if protocol == "time":
        if not has_times:
            raise DataError(
                "the time protocol needs a timestamp in every row", where=folder / "events.parquet",
                field=Col.timestamp, fix="use --protocol leave_one_out",
            )  # fmt: skip
        cuts = time_cuts(events, targets, valid, test)
        exposures = None
        if labelled is not None:
            is_test = (pl.col(Col.timestamp) >= cuts["test"]).alias(IS_TEST)
            exposures = labelled.with_columns(is_test)
        return Benchmark(
            events, items, cuts, tuple(targets), protocol, exposures=exposures, notes=notes
        )
    if protocol == "leave_one_out":
        laid = leave_one_out(events, targets, has_times)
        return Benchmark(laid, items, day_cuts(), tuple(targets), protocol, notes=notes)
    if splits is None:
        raise DataError(
            "the protocol `splits` needs its file", where=folder / "splits.parquet",
            fix="use --protocol time or leave_one_out",
        )  # fmt: skip
    laid, rows, cuts = lay_out_splits(splits, events, targets, notes)
    exposures, whole = None, False
    # Without labels in the file, or with days laid out by order alone, exposures mean nothing.
    if has_times and labelled is not None and cuts != day_cuts() and LABEL in splits.columns:
        exposures = published_exposures(splits, labelled)
        whole = tells_whole_histories(splits, exposures)
    return Benchmark(laid, items, cuts, tuple(targets), protocol, rows, exposures, whole, notes)
