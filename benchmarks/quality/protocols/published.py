"""The protocol `splits`: published histories and targets, laid out in time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from benchmarks.quality.protocols.benchmark import CODES, HISTORY, NOW, TIMES, UTC_US
from benchmarks.quality.protocols.leave_one_out import DAY, TEST_DAY, day_cuts
from benchmarks.quality.protocols.parts import LABEL, PART, PARTS
from recsys.schema import EVENT_CODE, Col

SECOND = dt.timedelta(seconds=1)


@dataclass
class _Step:
    """One element of a user's published sequence."""

    item: str
    split: str
    time: dt.datetime | None
    label: int
    row: int | None
    """Number of the row in `splits.parquet`; None for an item that is only ever history."""


def lay_out_splits(
    splits: pl.DataFrame,
    events: pl.DataFrame,
    targets: Sequence[str],
    notes: list[str],
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, dt.datetime]]:
    """Lay published sequences out in time; notes are appended.

    Returns:
        The events, the test rows (`Benchmark.rows`), and the cuts.
    """
    has_times = Col.timestamp in splits.columns and splits[Col.timestamp].null_count() == 0
    if not has_times:
        splits = splits.with_columns(pl.lit(None, UTC_US).alias(Col.timestamp))
    if LABEL not in splits.columns:
        splits = splits.with_columns(pl.lit(1).alias(LABEL))
    sequences = _sequences(splits)
    cuts = _cuts_of(splits) if has_times else None
    if cuts is None:
        notes.append("the splits do not follow each other in time: only their order is kept")
        cuts = day_cuts()
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
    lasts: list[Any] = [train.max(), valid.max()]
    firsts: list[Any] = [valid.min(), test.min()]
    if not (lasts[0] <= firsts[0] and lasts[1] <= firsts[1]):
        return None
    cuts: dict[str, dt.datetime] = {"valid": firsts[0], "test": firsts[1]}
    earlier = train.filter(train < cuts["valid"]).sort()
    if earlier.is_empty():
        return None
    cuts["head"] = earlier[max(0, len(earlier) - len(valid))]
    if not cuts["head"] < cuts["valid"] < cuts["test"]:
        return None
    return cuts


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
