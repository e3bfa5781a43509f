"""How `prepare` refuses bad input: in one line, and leaving what was there."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prepare_runs import Change, first_rows, hashes, refused, tiny_data, with_robot
from tiny import (
    CUTS,
    day,
    prepare_here,
    prepared_in_process,
    tiny_events,
    tiny_items,
    tiny_log,
    tiny_recipe,
    tiny_recipe_file,
    write_log,
)

from ray_jobs import cli
from recsys.preparation.prepared import PREPARED
from recsys.schema import Col


def same(frame: pl.DataFrame) -> pl.DataFrame:
    return frame


#: What is wrong with the log -> how, and what the message must name.
BAD_LOGS: dict[str, tuple[Change, Change, list[str]]] = {
    "missing column": (
        lambda events: events.drop(Col.item),
        same,
        ["events.parquet", "[item_id]", "missing column", "add a column `item_id`"],
    ),
    "wrong type": (
        lambda events: events.with_columns(pl.col(Col.timestamp).cast(pl.String)),
        same,
        ["events.parquet", "[timestamp]", "wrong type", "timestamp[us, tz=UTC]"],
    ),
    "unknown event type": (
        first_rows(Col.event_type, "stared_at"),
        same,
        ["events.parquet", "[event_type]", "stared_at", "data.event_types", "quarantine"],
    ),
    "null user": (
        first_rows(Col.user, None),
        same,
        ["events.parquet", "[user_id]", "null_user_id", "fill the column"],
    ),
    "a user that no request can name": (
        first_rows(Col.user, "x" * 300),
        same,
        ["events.parquet", "[user_id]", "unfit_user_id", "at most 256 characters"],
    ),
    "null item": (first_rows(Col.item, None), same, ["[item_id]", "null_item_id", "fill"]),
    "null time": (first_rows(Col.timestamp, None), same, ["[timestamp]", "null_timestamp"]),
    "future": (
        first_rows(Col.timestamp, dt.datetime(2999, 1, 1, tzinfo=dt.UTC)),
        same,
        ["[timestamp]", "2999", "future_timestamp", "correct the clock"],
    ),
    "unknown item": (
        first_rows(Col.item, "no-such-item"),
        same,
        ["[item_id]", "no-such-item", "add the item"],
    ),
    "robot": (
        lambda _: with_robot(100_000),
        same,
        ["[user_id]", "too_many_events", "100,000", "data.max_events_per_user"],
    ),
    "items without text": (
        same,
        lambda items: items.with_columns(
            **{name: pl.lit(None, pl.String) for name in (Col.title, Col.brand, Col.category)}
        ),
        ["(items)", "[title]", "no_text", "give the item a title"],
    ),
    "an item twice": (
        same,
        lambda items: pl.concat([items, items]),
        ["(items)", "[item_id]", "duplicate_item_id", "one row an item"],
    ),
    "text that is no UTF-8": (
        lambda events: _spoilt_text(events),
        same,
        ["events.parquet", "[item_id]", "cannot be read as string"],
    ),
    "a time beyond all": (
        lambda events: _as_seconds(events),
        same,
        ["events.parquet", "[timestamp]", "cannot be read as timestamp"],
    ),
    "an id that no request can name": (
        same,
        lambda items: items.with_columns(pl.lit("x" * 300).alias(Col.item)),
        ["(items)", "[item_id]", "unfit_item_id", "at most 256 characters"],
    ),
    "no rows": (lambda events: events.clear(), same, ["events", "no rows"]),
    "no items": (same, lambda items: items.clear(), ["(items)", "no items"]),
}


@pytest.mark.parametrize("case", BAD_LOGS)
def test_a_bad_log_is_refused(case: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    spoil_events, spoil_items, named = BAD_LOGS[case]
    spoilt = spoil_events(tiny_events())
    write_log(tmp_path / "log", tiny_events(), spoil_items(tiny_items()))
    if isinstance(spoilt, pl.DataFrame):
        spoilt = spoilt.to_arrow()
    pq.write_table(spoilt, tmp_path / "log" / "events.parquet")
    message = refused(tmp_path, capsys, tiny_recipe_file(tmp_path))
    for part in named:
        assert part in message, message


def _spoilt_text(events: pl.DataFrame) -> pa.Table:
    table = events.to_arrow()
    spoilt = pa.array([b"\xff\xfe"] * table.num_rows, pa.binary()).view(pa.string())
    return table.set_column(table.column_names.index(Col.item), Col.item, spoilt)


def _as_seconds(events: pl.DataFrame) -> pa.Table:
    table = events.to_arrow()
    late = pa.array([10**13] * table.num_rows, pa.int64()).cast(pa.timestamp("s", tz="UTC"))
    return table.set_column(table.column_names.index(Col.timestamp), Col.timestamp, late)


def test_two_columns_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tiny_log(tmp_path / "log")
    path = tmp_path / "log" / "events.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column(Col.user, table[Col.user]), path)
    message = refused(tmp_path, capsys, tiny_recipe_file(tmp_path))
    assert str(path) in message and "[user_id] two columns of this name" in message


def test_more_tokens_than_the_language_model_reads_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny_log(tmp_path / "log")
    path = tiny_recipe_file(tmp_path, data=tiny_data(tmp_path, max_tokens=65))
    message = refused(tmp_path, capsys, path)
    assert "[data.max_tokens]" in message and "at most 64" in message


def test_an_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "log").mkdir()
    message = refused(tmp_path, capsys, tiny_recipe_file(tmp_path))
    assert "[data.source]" in message and str(tmp_path / "log") in message


def test_a_delta_table_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Its folder holds the rows of erased users too; only its log says that they are gone."""
    tiny_log(tmp_path / "log", hive=True)
    log = tmp_path / "log" / "events" / "_delta_log"
    log.mkdir()
    (log / "00000000000000000000.json").write_text("{}")
    message = refused(tmp_path, capsys, tiny_recipe_file(tmp_path))
    assert "a Delta table" in message and 'spark.read.format("delta")' in message
    assert str(tmp_path / "log" / "events") in message


@pytest.mark.parametrize("keep", [0, 3, 0.5, 0.99])
def test_a_corrupt_file_is_refused(
    keep: float, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny_log(tmp_path / "log")
    path = tmp_path / "log" / "events.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    message = refused(tmp_path, capsys, tiny_recipe_file(tmp_path))
    assert str(path) in message and "write the file again" in message


def test_a_file_with_spoilt_pages_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The footer is whole, so that it fails only when a task reads the rows."""
    tiny_log(tmp_path / "log")
    path = tmp_path / "log" / "events.parquet"
    content = bytearray(path.read_bytes())
    content[8 : len(content) // 2] = bytes(len(content) // 2 - 8)
    path.write_bytes(content)
    message = refused(tmp_path, capsys, tiny_recipe_file(tmp_path))
    assert str(path) in message and "write the file again" in message


@pytest.mark.parametrize(
    ("days", "named"),
    [
        ((380, 400, 420), ["[data.cuts.head]", "the head window", "move data.cuts"]),
        ((50, 95, 99), ["[data.cuts.valid]", "the valid window holds no purchase event"]),
        ((50, 60, 95), ["[data.cuts.test]", "the test window holds no purchase event"]),
        ((0, 60, 70), ["[data.cuts.head]", "nothing to learn"]),
    ],
)
def test_an_empty_window_is_refused(
    days: tuple[int, int, int], named: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny_log(tmp_path / "log")
    cuts = {name: day(number) for name, number in zip(CUTS, days, strict=True)}
    path = tiny_recipe_file(tmp_path, data=tiny_data(tmp_path, cuts=cuts))
    message = refused(tmp_path, capsys, path)
    for part in named:
        assert part in message, message


def test_a_refused_run_leaves_the_last_good_one(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny_log(tmp_path / "log")
    recipe = tiny_recipe(tmp_path)
    prepare_here(recipe)
    before = hashes(recipe.root / PREPARED)
    write_log(tmp_path / "log", first_rows(Col.user, None)(tiny_events()), tiny_items())
    with prepared_in_process(), pytest.raises(SystemExit):
        cli.main(["prepare", "--config", str(tiny_recipe_file(tmp_path))])
    assert "null_user_id" in capsys.readouterr().err
    assert hashes(recipe.root / PREPARED) == before
