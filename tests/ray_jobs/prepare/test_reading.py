"""Logs that differ from ours in names, types, folders or files."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
import yaml
from prepare_runs import refused, tiny_data
from tiny import (
    KEY,
    KEY_ENV,
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
from recsys.schema import Col


def test_files_that_are_no_data_are_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    tiny_log(tmp_path / "log", hive=True)
    plain = prepare_here(tiny_recipe(tmp_path)).summary
    spark = tmp_path / "log" / "events"
    part = next(spark.rglob("*.parquet"))
    for name in ("_SUCCESS", "_temporary/0/part-9.parquet", ".ipynb_checkpoints/part.parquet"):
        (spark / name).parent.mkdir(parents=True, exist_ok=True)
        (spark / name).write_bytes(part.read_bytes() if "." in name else b"")
    (spark / "notes.csv").write_text("a,b")
    recipe = tiny_recipe(tmp_path)
    left_out = "in events: 3 files whose names, or their folders', begin with _ or ., 1 .csv file"
    assert f"leave out {left_out}" in prepare.plan(Run.open(recipe))
    summary = prepare_here(recipe).summary
    assert summary["data_fingerprint"] == plain["data_fingerprint"]
    assert summary["left_out_files"] == {"events": {".csv": 1, "hidden": 3}, "items": {}}
    assert f"left out {left_out}" in prepare.report(Run.open(recipe))


def test_a_log_in_capitals_is_read_through_the_mapping_that_the_error_proposes(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    tiny_log(tmp_path / "plain" / "log")
    plain = prepare_here(tiny_recipe(tmp_path / "plain")).summary
    events, items = (
        frame.rename({name: name.upper() for name in frame.columns})
        for frame in (tiny_events(), tiny_items())
    )
    write_log(tmp_path / "log", events, items)
    message = refused(tmp_path, capsys, tiny_recipe_file(tmp_path))
    (mapping,) = re.findall(r"data\.(columns: {events: {.*?}})", message)
    columns = yaml.safe_load(mapping)["columns"]
    columns["items"] = {name: name.upper() for name in tiny_items().columns}
    data = tiny_data(tmp_path, columns=columns)
    read = prepare_here(tiny_recipe(tmp_path, data=data)).summary
    assert read["data_fingerprint"] == plain["data_fingerprint"]


def test_ids_of_two_kinds_are_told_and_the_run_goes_on(tmp_path: Path) -> None:
    number = pl.col(Col.user).str.extract(r"-0*([0-9]+)$").cast(pl.Int64)
    events = tiny_events().with_columns(number.alias(Col.user))
    first, second = events[:400], events[400:]
    padded = second.with_columns(pl.format("0{}", Col.user).alias(Col.user))
    items = tiny_items().with_columns(pl.col(Col.item).cast(pl.Categorical))
    write_log(tmp_path / "log", events, items)
    (tmp_path / "log" / "events.parquet").unlink()
    (tmp_path / "log" / "events").mkdir()
    for name, frame in (("a", first), ("b", padded)):
        frame.write_parquet(tmp_path / "log" / "events" / f"{name}.parquet")
    recipe = tiny_recipe(tmp_path)
    prepare_here(recipe)
    (line,) = (each for each in prepare.report(Run.open(recipe)) if each.startswith("warning: "))
    folder = tmp_path / "log" / "events"
    assert line == (
        f"warning: user_id is integer in 1 file ({folder}/a.parquet), text in 1 file "
        f"({folder}/b.parquet); of the text ids {second[Col.user].n_unique()} are another spelling "
        "of an integer, such as '007' (distinct ids by part, added up), and count as other ids: "
        "write the column as one type"
    )


def test_of_daily_snapshots_the_newest_row_of_an_item_counts(tmp_path: Path) -> None:
    tiny_log(tmp_path / "log")
    (tmp_path / "log" / "items.parquet").unlink()
    for day_, price in (("2024-01-09", 1.0), ("2024-01-10", 2.0)):
        folder = tmp_path / "log" / "items" / f"dt={day_}"
        folder.mkdir(parents=True)
        tiny_items().with_columns(price=pl.lit(price)).write_parquet(folder / "0.parquet")
    prepared = prepare_here(tiny_recipe(tmp_path))
    assert set(prepared.catalogue.prices.tolist()) == {2.0}
    assert prepared.summary["counts"]["superseded"] == 40
    assert "40 rows of items superseded by newer ones" in prepare.report(
        Run.open(tiny_recipe(tmp_path))
    )
