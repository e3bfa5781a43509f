"""Rows that are left out are kept with their reason, and told."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prepare_runs import first_rows, refused, tiny_data
from tiny import (
    prepare_here,
    tiny_events,
    tiny_items,
    tiny_log,
    tiny_recipe,
    tiny_recipe_file,
    write_log,
)

from ray_jobs import prepare
from recsys.artifacts.run import Run
from recsys.preparation.prepared import PREPARED, QUARANTINE_DIR
from recsys.schema import Col


def test_quarantined_rows_are_kept_with_their_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_log(tmp_path / "log", first_rows(Col.event_type, "stare")(tiny_events()), tiny_items())
    refused(tmp_path, capsys, tiny_recipe_file(tmp_path))
    kept = pl.read_parquet(tmp_path / "run" / QUARANTINE_DIR / "part-00000.parquet")
    assert kept[Col.reason].unique().to_list() == ["unknown_event_type"]
    assert kept[Col.event_type].unique().to_list() == ["stare"]
    assert kept.height == int(0.02 * tiny_events().height)


def test_bytes_that_are_no_text_are_quarantined_and_no_user_s_bytes_are_shown(
    tmp_path: Path,
) -> None:
    events = tiny_events().with_columns(
        pl.when(pl.int_range(pl.len()) == row).then(pl.lit(b"\xff\xfe"))
        .otherwise(pl.col(name).cast(pl.Binary)).alias(name)
        for row, name in enumerate((Col.user, Col.item, Col.event_type, Col.session))
    )  # fmt: skip
    write_log(tmp_path / "log", events, tiny_items())
    recipe = tiny_recipe(tmp_path)
    prepare_here(recipe)
    bad = pl.read_parquet(recipe.root / PREPARED / QUARANTINE_DIR / "part-00000.parquet")
    assert bad.select(Col.reason, Col.unreadable).rows() == [
        ("unreadable_user_id", "user_id: a value cannot be read as string (UTF-8)"),
        ("unreadable_item_id", r"item_id: b'\xff\xfe' cannot be read as string (UTF-8)"),
        ("unreadable_event_type", r"event_type: b'\xff\xfe' cannot be read as string (UTF-8)"),
        ("unreadable_session_id", "session_id: a value cannot be read as string (UTF-8)"),
    ]


@pytest.mark.parametrize(
    ("seconds", "reason", "shown"),
    [
        (19_893_945_600, "future_timestamp", "2600-06-01"),
        (-62_135_596_800, "ancient_timestamp", "0001-01-01"),
        (10**13, "unreadable_timestamp", "318857-05-20"),
    ],
)
def test_the_quarantine_shows_a_time_that_cannot_be(
    seconds: int, reason: str, shown: str, tmp_path: Path
) -> None:
    table = tiny_events().to_arrow()
    times = table[Col.timestamp].cast(pa.timestamp("s", "UTC"))
    wrong = pa.array([seconds], pa.int64()).cast(times.type)
    spoilt = pa.chunked_array([wrong, *times.slice(1).chunks])
    tiny_log(tmp_path / "log")
    spoilt_table = table.set_column(table.column_names.index(Col.timestamp), Col.timestamp, spoilt)
    pq.write_table(spoilt_table, tmp_path / "log" / "events.parquet")
    recipe = tiny_recipe(tmp_path)
    assert prepare_here(recipe).summary["quarantined"] == {reason: 1}
    row = pl.read_parquet(recipe.root / PREPARED / QUARANTINE_DIR / "part-00000.parquet")
    assert row[Col.reason].to_list() == [reason]
    assert shown in f"{row[Col.timestamp][0]} {row[Col.unreadable][0]}"


def test_items_in_quarantine_are_told(tmp_path: Path) -> None:
    items = tiny_items().with_columns(
        *(pl.when(pl.int_range(pl.len()) == 0).then(None).otherwise(pl.col(name)).alias(name)
          for name in (Col.title, Col.brand, Col.category))
    )  # fmt: skip
    events = tiny_events().filter(pl.col(Col.item) != items[Col.item][0])
    write_log(tmp_path / "log", events, items)
    recipe = tiny_recipe(tmp_path, data=tiny_data(tmp_path, max_quarantine_fraction=0.1))
    prepare_here(recipe)
    (line,) = (e for e in prepare.report(Run.open(recipe)) if e.startswith("quarantined items"))
    assert line.startswith("quarantined items: 1 ") and QUARANTINE_DIR in line
