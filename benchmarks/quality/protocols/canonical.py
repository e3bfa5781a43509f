"""Tables of a foreign folder -> canonical items and events."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from benchmarks.quality.protocols.benchmark import HISTORY, UTC_US
from benchmarks.quality.protocols.parts import LABEL, PART
from recsys.errors import DataError
from recsys.schema import EVENT_TYPES, Col

#: What an item without any text is called; whole catalogues are ranked, so it must stay.
NO_TEXT = "unknown item"


def read_table(folder: Path, name: str) -> pl.DataFrame:
    """One of the folder's tables, its ids as text and its times in UTC.

    Raises:
        DataError: the file cannot be read, or lacks a column.
    """
    path = folder / f"{name}.parquet"
    try:
        frame = pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"cannot be read: {error}", where=path, fix="a benchmark needs this file"
        ) from None
    needed = {"items": [Col.item], "events": [Col.user, Col.item]}.get(
        name, [PART, Col.user, HISTORY, Col.item]
    )
    for column in needed:
        if column not in frame.columns:
            raise DataError("missing column", where=path, field=column, fix="add it")
    ids = [column for column in (Col.user, Col.item) if column in frame.columns]
    frame = frame.with_columns(pl.col(ids).cast(pl.String))
    if HISTORY in frame.columns:
        frame = frame.with_columns(pl.col(HISTORY).cast(pl.List(pl.String)).fill_null([]))
    if Col.timestamp in frame.columns:
        frame = frame.with_columns(_utc(frame[Col.timestamp]))
    return frame


def _utc(times: pl.Series) -> pl.Series:
    if isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone is None:
        times = times.dt.replace_time_zone("UTC")
    return times.cast(UTC_US)


def canonical_items(
    items: pl.DataFrame, events: pl.DataFrame, splits: pl.DataFrame | None
) -> pl.DataFrame:
    """The catalogue with a text for every item, and every item that an event or a split names."""
    items = items.unique(Col.item, keep="first", maintain_order=True)
    named = [events[Col.item]]
    if splits is not None:
        named += [splits[Col.item], splits[HISTORY].explode().rename(Col.item)]
    distinct = pl.concat(named).drop_nulls().unique().to_frame()
    missing = distinct.join(items, on=Col.item, how="anti").sort(Col.item)
    items = pl.concat([items, missing], how="diagonal")
    texts = [
        name for name in (Col.title, Col.description, Col.brand, Col.category, Col.tags)
        if name in items.columns and items[name].dtype in (pl.String, pl.List(pl.String))
    ]  # fmt: skip
    if Col.title not in items.columns:
        items = items.with_columns(pl.lit(None, pl.String).alias(Col.title))
    blank = pl.all_horizontal(
        pl.lit(True),
        *(
            pl.col(name).is_null() | (pl.col(name).str.strip_chars() == "")
            for name in texts
            if items[name].dtype == pl.String
        ),
    )
    return items.with_columns(
        pl.when(blank).then(pl.lit(NO_TEXT)).otherwise(pl.col(Col.title)).alias(Col.title)
    )


def canonical_events(events: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """Events under canonical types; of a labelled log a 1 is the strongest type, a 0 a view.

    A log that knows none of the canonical names has one kind of event, the one to predict.
    """
    strongest = EVENT_TYPES[-1]
    label = _label_column(events)
    if label is not None:
        notes.append(f"labelled log: {label} 1 is what is to be predicted, 0 a view")
        kind = pl.when(pl.col(label) == 1).then(pl.lit(strongest)).otherwise(pl.lit("view"))
        return events.with_columns(
            kind.alias(Col.event_type), pl.col(label).cast(pl.Int8).alias(LABEL)
        )
    events = events.drop(LABEL, strict=False)
    if Col.event_type not in events.columns:
        return events.with_columns(pl.lit(strongest).alias(Col.event_type))
    known = pl.col(Col.event_type).is_in(EVENT_TYPES)
    if not events.select(known.any()).item():
        names = ", ".join(sorted(events[Col.event_type].drop_nulls().unique()))
        notes.append(f"events to predict: {names or 'all'}")
        return events.with_columns(pl.lit(strongest).alias(Col.event_type))
    left_out = events.filter(~known)
    if left_out.height:
        names = ", ".join(sorted(left_out[Col.event_type].drop_nulls().unique()))
        notes.append(f"left out: {left_out.height:,} events of type {names}")
    return events.filter(known)


def _label_column(events: pl.DataFrame) -> str | None:
    for name in ("value", "rating"):
        if name in events.columns and events[name].null_count() == 0:
            values = set(events[name].unique())
            if values == {0, 1}:
                return name
    return None


def filter_events(
    events: pl.DataFrame, items: pl.DataFrame, where: str | None, notes: list[str]
) -> pl.DataFrame:
    """The events that the condition holds for, in canonical columns."""
    if where is not None:
        more = [name for name in items.columns if name == Col.item or name not in events.columns]
        wide = events.join(items.select(more), on=Col.item, how="left", maintain_order="left")
        try:
            kept = wide.filter(pl.sql_expr(where))
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"not a condition over the columns: {error}", where="--where", value=where,
                fix=f"use {', '.join(wide.columns)}",
            ) from None  # fmt: skip
        notes.append(f"{kept.height:,} of {events.height:,} events where {where}")
        events = kept
    columns = [Col.user, Col.item, Col.event_type]
    columns += [name for name in (Col.timestamp, Col.session, LABEL) if name in events.columns]
    if events.is_empty():
        raise DataError("no events are left", where="events", fix="correct --where")
    return events.select(columns)
