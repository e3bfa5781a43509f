"""Any folder of `items.parquet` and `events.parquet` -> a canonical log with a protocol's cuts.

The product knows one way to split: a global time cut. A protocol is laid out in time so that the
product's own jobs, unchanged, learn from what it calls training, choose by what it calls validation
and are asked what it calls test:

- `time`: the times as they are; events at one time never see each other.
- `leave_one_out`: each user's last moment with a target is test, the one before it validation, the
  one before that fits the scoring head. Order is kept and time is not: moments lie a day apart, and
  a log without timestamps has one moment a row.
- `splits`: `splits.parquet` names every row's history and target. If its parts follow each other in
  time, the times stay; else they are laid out as in `leave_one_out`. The published order is part of
  the protocol, so the events of a user lie at distinct times in that order.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.quality.parts import LABEL, PART, PARTS, read_parts
from recsys.errors import DataError
from recsys.schema import EVENT_CODE, EVENT_TYPES, Col

PROTOCOLS = ("splits", "time", "leave_one_out")
UTC_US = pl.Datetime("us", "UTC")

#: Where protocols that keep only the order begin their test window.
TEST_DAY = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
DAY, SECOND = dt.timedelta(days=1), dt.timedelta(seconds=1)

#: What an item without any text is called; whole catalogues are ranked, so it must stay.
NO_TEXT = "unknown item"

#: Shares of the target events that the time protocol trains on and validates on, by default.
VALID_FROM, TEST_FROM = 0.8, 0.9

# Columns of `Benchmark.rows`, and of `Benchmark.exposures`.
HISTORY, TIMES, CODES, NOW = "history", "times", "codes", "now"
IS_TEST = "is_test"


@dataclass(frozen=True)
class Benchmark:
    """A folder as the jobs can read it.

    Attributes:
        events: canonical columns.
        items: canonical columns.
        cuts: `head`, `valid` and `test`.
        targets: canonical names of the events to predict.
        protocol: one of `PROTOCOLS`.
        rows: of `splits` alone, the test rows in their order: user_id, item_id, history, times
            and codes of its events, label (1 where there is none), now.
        exposures: of a labelled log that is split by time, its events at their raw times: user_id,
            item_id, timestamp, label, and whether the row is to be predicted (`is_test`).
        whole_histories: whether the history that `splits` gives a test row holds all its user's
            earlier likes.
        notes: what a reader of the figures should know.
    """

    events: pl.DataFrame
    items: pl.DataFrame
    cuts: dict[str, dt.datetime]
    targets: tuple[str, ...]
    protocol: str
    rows: pl.DataFrame | None = None
    exposures: pl.DataFrame | None = None
    whole_histories: bool = False
    notes: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write the canonical log."""
        folder.mkdir(parents=True, exist_ok=True)
        self.events.write_parquet(folder / "events.parquet")
        self.items.write_parquet(folder / "items.parquet")


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
    events, items = _read(folder, "events"), _read(folder, "items")
    has_times = Col.timestamp in events.columns and events[Col.timestamp].null_count() == 0
    has_splits = (folder / "splits.parquet").is_file()
    if protocol is None:
        protocol = "splits" if has_splits else "time" if has_times else "leave_one_out"
    splits = None
    if has_splits and protocol == "splits":
        splits = read_parts(_read(folder, "splits"), folder / "splits.parquet", notes)
    items = _items(items, events, splits)
    events = _where(_events(events, notes), items, where, notes)
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
        cuts = _time_cuts(events, targets, valid, test)
        exposures = None
        if labelled is not None:
            is_test = (pl.col(Col.timestamp) >= cuts["test"]).alias(IS_TEST)
            exposures = labelled.with_columns(is_test)
        return Benchmark(
            events, items, cuts, tuple(targets), protocol, exposures=exposures, notes=notes
        )
    if protocol == "leave_one_out":
        laid = _leave_one_out(events, targets, has_times)
        return Benchmark(laid, items, _day_cuts(), tuple(targets), protocol, notes=notes)
    if splits is None:
        raise DataError(
            "the protocol `splits` needs its file", where=folder / "splits.parquet",
            fix="use --protocol time or leave_one_out",
        )  # fmt: skip
    laid, rows, cuts = _splits(splits, events, targets, notes)
    exposures, whole = None, False
    # A label that the file does not give, and days that follow from the order alone, tell nothing.
    if has_times and labelled is not None and cuts != _day_cuts() and LABEL in splits.columns:
        exposures = _exposures(splits, labelled)
        whole = _whole_histories(splits, exposures)
    return Benchmark(laid, items, cuts, tuple(targets), protocol, rows, exposures, whole, notes)


_EXPOSURE = (Col.user, Col.item, Col.timestamp, LABEL)
_ITEM_COLUMNS = (
    Col.item, Col.title, Col.description, Col.brand, Col.category, Col.tags, Col.price,
)  # fmt: skip


def _read(folder: Path, name: str) -> pl.DataFrame:
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


def _items(items: pl.DataFrame, events: pl.DataFrame, splits: pl.DataFrame | None) -> pl.DataFrame:
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


def _events(events: pl.DataFrame, notes: list[str]) -> pl.DataFrame:
    """Event types mapped to canonical ones: labelled logs say like or dislike, others what it was.

    A log that knows none of our names has one kind of event, and it is the one to predict.
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


def _where(
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


def _time_cuts(
    events: pl.DataFrame,
    targets: Sequence[str],
    valid: dt.datetime | None,
    test: dt.datetime | None,
) -> dict[str, dt.datetime]:
    """The cuts; the head's window has about as many target events as the validation window."""
    times = events.filter(pl.col(Col.event_type).is_in(targets))[Col.timestamp].sort()

    def at(place: int) -> dt.datetime:
        return times[max(0, min(place, len(times) - 1))]

    test = test or at(int(len(times) * TEST_FROM))
    valid = valid or at(int(len(times) * VALID_FROM))
    first, last = (int((times < cut).sum()) for cut in (valid, test))
    head = at(first - (last - first))
    if not head < valid < test:
        raise DataError(
            f"no cut is possible: head {head}, valid {valid}, test {test}", where="events",
            field=Col.timestamp, fix="give --valid and --test, or use --protocol leave_one_out",
        )  # fmt: skip
    return {"head": head, "valid": valid, "test": test}


def _day_cuts() -> dict[str, dt.datetime]:
    return {"head": TEST_DAY - 2 * DAY, "valid": TEST_DAY - DAY, "test": TEST_DAY}


def _leave_one_out(events: pl.DataFrame, targets: Sequence[str], has_times: bool) -> pl.DataFrame:
    """Lay moments out by their order: the target moment that is n-th from the end lies at -n days.

    What comes before a target moment lies minutes before it. Events after the last one are left
    out, and a user with a single target moment is only learned from.
    """
    numbered = events.with_row_index("nth")
    if has_times:
        numbered = numbered.sort(Col.user, Col.timestamp, maintain_order=True)
        same = pl.col(Col.timestamp).rle_id().over(Col.user)
    else:
        numbered = numbered.sort(Col.user, "nth")
        same = pl.int_range(pl.len()).over(Col.user)
    numbered = numbered.with_columns(same.cast(pl.Int64).alias("moment"))
    moments = (
        numbered.group_by(Col.user, "moment", maintain_order=True)
        .agg(pl.col(Col.event_type).is_in(targets).any().alias("target"))
        .sort(Col.user, "moment")
    )
    moments = moments.with_columns(
        # Target moments from this one on; 0 after the last.
        pl.col("target").cast(pl.Int64).cum_sum(reverse=True).over(Col.user).alias("left"),
        pl.col("target").sum().over(Col.user).alias("of_user"),
    ).filter(pl.col("left") > 0)
    moments = moments.with_columns(
        pl.int_range(pl.len(), dtype=pl.Int64)
        .reverse()
        .over(Col.user, "left")
        .alias("moments_before")
    )
    # A user with one target moment alone is moved out of all windows but the training one.
    day = pl.col("left") - 1 + 3 * (pl.col("of_user") == 1).cast(pl.Int64)
    laid = moments.with_columns(
        (
            pl.lit(TEST_DAY, UTC_US) - pl.duration(days=day)
            + pl.when(pl.col("target")).then(pl.duration(hours=12)).otherwise(
                pl.duration(hours=12) - pl.duration(seconds=pl.col("moments_before"))
            )
        ).alias("laid")
    )  # fmt: skip
    return (
        numbered.join(laid.select(Col.user, "moment", "laid"), on=[Col.user, "moment"])
        .drop(Col.timestamp, strict=False)
        .rename({"laid": Col.timestamp})
        .drop("nth", "moment")
    )


def _exposures(splits: pl.DataFrame, labelled: pl.DataFrame) -> pl.DataFrame:
    """All that was shown: the rows of the splits, and the events that are none of them."""
    rows = splits.select(
        Col.user, Col.item, Col.timestamp, pl.col(LABEL).cast(pl.Int8),
        (pl.col(PART) == "test").alias(IS_TEST),
    )  # fmt: skip
    others = labelled.join(rows, on=[Col.user, Col.item, Col.timestamp], how="anti")
    return pl.concat([rows, others.with_columns(pl.lit(False).alias(IS_TEST))])


def _whole_histories(splits: pl.DataFrame, exposures: pl.DataFrame) -> bool:
    """Whether no test row's history lacks a like that its user gave before the row's timestamp."""
    tests = splits.filter(pl.col(PART) == "test").with_row_index("row")
    likes = exposures.filter(pl.col(LABEL) == 1).select(
        Col.user, pl.col(Col.item).alias(HISTORY), pl.col(Col.timestamp).alias(NOW)
    )
    earlier = (
        tests.select("row", Col.user, Col.timestamp)
        .join(likes, on=Col.user)
        .filter(pl.col(NOW) < pl.col(Col.timestamp))
    )
    told = tests.select("row", HISTORY).explode(HISTORY)
    return earlier.join(told, on=["row", HISTORY], how="anti").is_empty()


@dataclass
class _Step:
    """One element of a user's published sequence."""

    item: str
    split: str
    time: dt.datetime | None
    label: int
    row: int | None
    """Number of the row in `splits.parquet`; None for an item that is only ever history."""


def _splits(
    splits: pl.DataFrame,
    events: pl.DataFrame,
    targets: Sequence[str],
    notes: list[str],
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, dt.datetime]]:
    has_times = Col.timestamp in splits.columns and splits[Col.timestamp].null_count() == 0
    if not has_times:
        splits = splits.with_columns(pl.lit(None, UTC_US).alias(Col.timestamp))
    if LABEL not in splits.columns:
        splits = splits.with_columns(pl.lit(1).alias(LABEL))
    sequences = _sequences(splits)
    cuts = _cuts_of(splits) if has_times else None
    if cuts is None:
        notes.append("the splits do not follow each other in time: only their order is kept")
        cuts = _day_cuts()
        for steps in sequences.values():
            _lay_by_order(steps)
    else:
        known = _known_times(events)
        for user, steps in sequences.items():
            _lay_by_time(steps, cuts, known.get(user, {}))
    target, other = targets[-1], "view"
    rows: dict[str, list[Any]] = {
        name: [] for name in (Col.user, Col.item, Col.event_type, Col.timestamp)
    }
    for user, steps in sequences.items():
        rows[Col.user] += [user] * len(steps)
        rows[Col.item] += [step.item for step in steps]
        rows[Col.event_type] += [target if step.label == 1 else other for step in steps]
        rows[Col.timestamp] += [step.time for step in steps]
    laid = pl.DataFrame(rows, schema_overrides={Col.timestamp: UTC_US})
    tests = _test_rows(splits, sequences, EVENT_CODE[target], EVENT_CODE[other])
    if has_times:
        tied = _share_tied(splits, events)
        if tied > 0.01:
            notes.append(
                f"{tied:.0%} of the test targets share their timestamp with the event before: "
                "the order inside a timestamp is the publisher's"
            )
    return laid, tests, cuts


def _sequences(splits: pl.DataFrame) -> dict[str, list[_Step]]:
    """Each user's published sequence: the first row's history, then the rows' items in order."""
    order = {name: place for place, name in enumerate(PARTS)}
    columns = (PART, Col.user, HISTORY, Col.item, Col.timestamp, LABEL)
    numbered = splits.with_row_index("row").with_columns(
        pl.col(PART).replace_strict(order, return_dtype=pl.Int8).alias("place")
    )
    numbered = numbered.sort(Col.user, "place", "row")
    sequences: dict[str, list[_Step]] = {}
    for row, split, user, history, item, time, label in numbered.select("row", *columns).rows():
        steps = sequences.setdefault(user, [])
        if not steps:
            steps += [_Step(each, "train", None, 1, None) for each in history]
        steps.append(_Step(item, split, time, int(label), row))
    return sequences


def _cuts_of(splits: pl.DataFrame) -> dict[str, dt.datetime] | None:
    """The global cuts that the splits follow; None if they follow none."""
    bounds = {name: splits.filter(pl.col(PART) == name)[Col.timestamp] for name in PARTS}
    if any(times.is_empty() for times in bounds.values()):
        return None
    train, valid, test = (bounds[name] for name in PARTS)
    if not (train.max() <= valid.min() and valid.max() <= test.min()):  # type: ignore[operator]
        return None
    cuts = {"valid": valid.min(), "test": test.min()}
    earlier = train.filter(train < cuts["valid"]).sort()
    if earlier.is_empty():
        return None
    cuts["head"] = earlier[max(0, len(earlier) - len(valid))]
    if not cuts["head"] < cuts["valid"] < cuts["test"]:
        return None
    return cuts  # type: ignore[return-value]


def _known_times(events: pl.DataFrame) -> dict[str, dict[str, dt.datetime]]:
    """User -> item -> first time; for items that the splits give as history alone."""
    if Col.timestamp not in events.columns:
        return {}
    first = events.drop_nulls(Col.timestamp).group_by(Col.user, Col.item).agg(
        pl.col(Col.timestamp).min()
    )  # fmt: skip
    known: dict[str, dict[str, dt.datetime]] = {}
    for user, item, time in first.select(Col.user, Col.item, Col.timestamp).rows():
        known.setdefault(user, {})[item] = time
    return known


def _lay_by_time(
    steps: list[_Step], cuts: dict[str, dt.datetime], known: dict[str, dt.datetime]
) -> None:
    """Distinct rising times, each inside its split's window."""
    until = {"train": cuts["valid"], "valid": cuts["test"]}
    latest: dt.datetime | None = None
    for step in reversed(steps):
        time = step.time or known.get(step.item)
        if latest is not None:
            time = min(time or latest, latest)
        assert time is not None  # the last step is a row, and rows have times
        if step.row is not None and step.split in until:
            time = min(time, until[step.split] - SECOND)
        step.time = latest = time
    for place, step in enumerate(steps):
        assert step.time is not None
        step.time += dt.timedelta(microseconds=place)


def _lay_by_order(steps: list[_Step]) -> None:
    """Test from the test day on, validation the day before, training a day apart before that."""
    train = [step for step in steps if step.split == "train"]
    for place, step in enumerate(reversed(train)):
        step.time = TEST_DAY - (2 + place) * DAY + DAY / 2
    for split, first in (("valid", TEST_DAY - DAY), ("test", TEST_DAY)):
        for place, step in enumerate(step for step in steps if step.split == split):
            step.time = first + DAY / 2 + place * SECOND


def _test_rows(
    splits: pl.DataFrame, sequences: dict[str, list[_Step]], target: int, other: int
) -> pl.DataFrame:
    """The test rows in the file's order, each history with times and types."""
    found: list[tuple[Any, ...]] = []
    histories = splits[HISTORY].to_list()
    for user, steps in sequences.items():
        for place, step in enumerate(steps):
            if step.split != "test" or step.row is None:
                continue
            assert step.time is not None
            history = histories[step.row]
            before = steps[place - len(history) : place] if len(history) <= place else []
            if [each.item for each in before] == history:
                times = [each.time for each in before]
                codes = [target if each.label == 1 else other for each in before]
            else:  # a history that is no part of the sequence: liked items alone, say
                times = [step.time - (len(history) - n) * SECOND for n in range(len(history))]
                codes = [target] * len(history)
            found.append((step.row, user, step.item, history, times, codes, step.label, step.time))
    return pl.DataFrame(
        found,
        schema={
            "row": pl.Int64,
            Col.user: pl.String,
            Col.item: pl.String,
            HISTORY: pl.List(pl.String),
            TIMES: pl.List(UTC_US),
            CODES: pl.List(pl.Int8),
            LABEL: pl.Int8,
            NOW: UTC_US,
        },
        orient="row",
    ).sort("row")


def _share_tied(splits: pl.DataFrame, events: pl.DataFrame) -> float:
    """Share of test rows whose user has another event at the target's very time, in its history."""
    if Col.timestamp not in events.columns:
        return 0.0
    tests = splits.filter(pl.col(PART) == "test").with_row_index("number")
    joined = (
        tests.explode(HISTORY)
        .join(
            events.select(Col.user, pl.col(Col.item).alias(HISTORY), Col.timestamp),
            on=[Col.user, HISTORY, Col.timestamp], how="semi",
        )["number"]
        .n_unique()
    )  # fmt: skip
    return joined / max(1, tests.height)
