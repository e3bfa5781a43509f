"""Row checks: what a canonical event must be, and the quarantine for what is not."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence

import polars as pl
import pyarrow as pa

from recsys.errors import DataError
from recsys.schema import ALL_EVENT_TYPES, CONTROL_CHARS, EVENTS, ITEMS, MAX_ID_CHARS, Col

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

#: What each reason means and how to fix it.
FIXES = {
    "null_user_id": (Col.user, "fill the column or drop the rows at the source"),
    "null_item_id": (Col.item, "fill the column or drop the rows at the source"),
    "null_timestamp": (Col.timestamp, "fill the column or drop the rows at the source"),
    "null_event_type": (Col.event_type, "fill the column or drop the rows at the source"),
    "ancient_timestamp": (Col.timestamp, "correct the unit or the default value at the source"),
    "future_timestamp": (Col.timestamp, "correct the clock or the time zone of the source"),
    "unknown_event_type": (
        Col.event_type,
        f"map it under data.event_types to one of {', '.join(ALL_EVENT_TYPES)}, "
        "or to null to leave it out",
    ),
    "unknown_item": (Col.item, "add the item, with a text, to the items table"),
    "too_many_events": (
        Col.user, "is it a robot or a shared account? else raise data.max_events_per_user",
    ),
    **{
        f"unfit_{name}": (
            name, f"use ids of at most {MAX_ID_CHARS} characters and without control characters",
        )
        for name in (Col.user, Col.item)
    },
    "duplicate_item_id": (Col.item, "keep one row an item"),
    "no_text": (Col.title, "give the item a title, or name other columns in data.text_fields"),
    **{
        f"unreadable_{field.name}": (
            field.name,
            "write the column as UTF-8 text; UUIDs as such, and not as bytes"
            if pa.types.is_string(field.type)
            else "correct the unit or the default value at the source",
        )
        for field in (*EVENTS, *ITEMS)
        if pa.types.is_string(field.type) or pa.types.is_timestamp(field.type)
    },
}  # fmt: skip


def is_no_id(name: str) -> pl.Expr:
    """Whether a column holds no id: null, or empty."""
    return pl.col(name).is_null() | (pl.col(name) == "")


def is_unfit(name: str) -> pl.Expr:
    """Whether a column's id is one that no request to the service could name.

    Such a user could not be erased, nor such an item taken away. The service's API has the same
    two limits.
    """
    ids = pl.col(name)
    return (ids.str.len_chars() > MAX_ID_CHARS) | ids.str.contains(CONTROL_CHARS)


def unreadable_reason() -> pl.Expr:
    """`unreadable_<column>` where an adapter could not read a value; else null."""
    return pl.lit("unreadable_") + pl.col(Col.unreadable).str.extract(r"^(\w+):")


def with_unreadable(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with the column `unreadable`, null where everything was read."""
    if Col.unreadable in rows.columns:
        return rows
    return rows.with_columns(pl.lit(None, pl.String).alias(Col.unreadable))


def map_event_types(
    events: pl.DataFrame, names: Mapping[str, str | None]
) -> tuple[pl.DataFrame, int]:
    """Translate the log's own event names; leave out those mapped to null.

    Returns:
        The rows that stay, and how many were left out because the recipe says so.
    """
    if not names:
        return events, 0
    left_out = [name for name, target in names.items() if target is None]
    kept = events.filter(~pl.col(Col.event_type).is_in(left_out).fill_null(False))
    renamed = kept.with_columns(
        pl.col(Col.event_type).replace({name: target for name, target in names.items() if target})
    )
    return renamed, events.height - kept.height


def check_events(
    events: pl.DataFrame, *, latest_us: int, known_items: pl.Series | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split canonical events into good rows and quarantined ones with `reason` and `unreadable`.

    Args:
        events: the `EVENTS` columns; `event_type` already mapped; `unreadable` if need be.
        latest_us: a later timestamp (microseconds) lies in the future.
        known_items: ids of the catalogue; None: any is taken for known.
    """
    unknown_item = (
        pl.lit(False) if known_items is None else ~pl.col(Col.item).is_in(known_items.implode())
    )
    reason = (
        pl.when(pl.col(Col.unreadable).is_not_null())
        .then(unreadable_reason())
        .when(is_no_id(Col.user))
        .then(pl.lit("null_user_id"))
        .when(is_no_id(Col.item))
        .then(pl.lit("null_item_id"))
        .when(is_unfit(Col.user))
        .then(pl.lit("unfit_user_id"))
        .when(is_unfit(Col.item))
        .then(pl.lit("unfit_item_id"))
        .when(pl.col(Col.timestamp).is_null())
        .then(pl.lit("null_timestamp"))
        .when(pl.col(Col.event_type).is_null())
        .then(pl.lit("null_event_type"))
        .when(pl.col(Col.timestamp).dt.epoch("us") < 0)
        .then(pl.lit("ancient_timestamp"))
        .when(pl.col(Col.timestamp).dt.epoch("us") > latest_us)
        .then(pl.lit("future_timestamp"))
        .when(~pl.col(Col.event_type).is_in(list(ALL_EVENT_TYPES)))
        .then(pl.lit("unknown_event_type"))
        .when(unknown_item)
        .then(pl.lit("unknown_item"))
    )
    checked = with_unreadable(events).with_columns(reason.alias(Col.reason))
    good = checked.filter(pl.col(Col.reason).is_null()).select(EVENTS.names)
    return good, checked.filter(pl.col(Col.reason).is_not_null())


def drop_crowded_users(events: pl.DataFrame, most: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split off the events of users with more than `most` of them (robots, shared accounts)."""
    crowded = pl.len().over(Col.user) > most
    marked = events.with_columns(pl.when(crowded).then(pl.lit("too_many_events")).alias(Col.reason))
    good = marked.filter(pl.col(Col.reason).is_null()).drop(Col.reason)
    return good, marked.filter(pl.col(Col.reason).is_not_null())


def enforce_quarantine_limit(
    quarantined: pl.DataFrame, num_rows: int, limit: float, *, what: str, kept_at: object
) -> None:
    """Stop if more than `limit` of the rows were quarantined.

    Args:
        quarantined: rows with `reason`, `source` (file) and the offending columns.
        num_rows: rows read in all.
        limit: fraction allowed.
        what: `events` or `items`, for the message.
        kept_at: where the quarantined rows lie.

    Raises:
        DataError: see `quarantine_problem`.
    """
    counts, examples = Counter(reasons([quarantined])), examples_of(quarantined)
    problem = quarantine_problem(counts, examples, num_rows, limit, what=what, kept_at=kept_at)
    if problem:
        raise problem


def examples_of(quarantined: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Reason -> the first row that was quarantined for it."""
    first = quarantined.unique(Col.reason, keep="first", maintain_order=True)
    return {str(row[Col.reason][0]): row for row in first.iter_slices(1)}


def quarantine_problem(
    counts: Mapping[str, int],
    examples: Mapping[str, pl.DataFrame],
    num_rows: int,
    limit: float,
    *,
    what: str,
    kept_at: object = None,
) -> DataError | None:
    """The most frequent reason, an example's file, field and value, and the fix.

    Args:
        counts: reason -> rows quarantined for it.
        examples: of `examples_of`.
        num_rows: rows read in all.
        limit: fraction allowed; up to it there is no problem.
        what: `events` or `items`, for the message.
        kept_at: where the quarantined rows lie, if they are kept.
    """
    num_bad = sum(counts.values())
    if num_bad <= limit * num_rows:
        return None
    ranked = sorted(counts.items(), key=lambda each: (each[1], each[0]), reverse=True)
    worst, example = ranked[0][0], examples[ranked[0][0]]
    field, fix = FIXES[worst]
    listed = ", ".join(f"{count:,} x {name}" for name, count in ranked)
    kept = f"; all of them lie in {kept_at}" if kept_at is not None else ""
    return DataError(
        f"{num_bad:,} of {num_rows:,} {what} were quarantined, more than the limit of {limit:.2%} "
        f"({listed}{kept})",
        where=example[Col.source][0] if Col.source in example.columns else None,
        field=field,
        value=_shown(example, field),
        fix=f"{fix}; or raise data.max_quarantine_fraction",
    )


def _shown(row: pl.DataFrame, field: str) -> str:
    """What a quarantined row holds in a field, as text; what it held if that could not be read."""
    if Col.unreadable in row.columns and row[Col.unreadable][0] is not None:
        return str(row[Col.unreadable][0]).removeprefix(f"{field}: ")
    if field not in row.columns:
        return "None"
    if row.schema[field] == pl.Datetime("us", "UTC"):
        return time_text(row[field].dt.epoch("us")[0])
    return str(row[field][0])


def time_text(us: int | None) -> str:
    """A time in microseconds since 1970 as a date and a time of day, UTC."""
    if us is None:
        return "None"
    try:
        return str(_EPOCH + dt.timedelta(microseconds=us))
    except OverflowError:  # a year below 1 or above 9999
        return f"{us} microseconds since 1970"


def reasons(frames: Sequence[pl.DataFrame]) -> dict[str, int]:
    """How many rows were quarantined for which reason."""
    if not frames:
        return {}
    counts = pl.concat([frame.select(Col.reason) for frame in frames])[Col.reason].value_counts()
    return dict(sorted(counts.rows()))
