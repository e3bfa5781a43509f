"""What a dry run tells, and the report after a run."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from prepare_runs import tiny_data
from tiny import (
    CUTS,
    day,
    prepare_here,
    tiny_events,
    tiny_items,
    tiny_log,
    tiny_recipe,
    tiny_recipe_file,
    write_log,
)

from ray_jobs import cli, prepare
from recsys.artifacts.run import Run
from recsys.config import Recipe
from recsys.schema import Col


def test_the_plan_counts_rows_and_writes_nothing(tmp_path: Path) -> None:
    tiny_log(tmp_path / "log")
    recipe: Recipe = tiny_recipe(tmp_path)
    lines = prepare.plan(Run.open(recipe))
    assert f"{tiny_events().height:,} rows" in lines[0]
    assert not recipe.root.exists()


def test_a_dry_run_tells_all_problems_in_one_list(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_log(tmp_path / "log", tiny_events().drop(Col.item), tiny_items().drop(Col.item))
    late = {name: day(1000 + number) for name, number in CUTS.items()}
    path = tiny_recipe_file(tmp_path, data=tiny_data(tmp_path, cuts=late))
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        cli.main(["prepare", "--config", str(path), "--dry-run"])
    printed = capsys.readouterr()
    assert end.value.code == 2 and printed.out == ""
    first, *lines = printed.err.splitlines()
    assert first == "prepare: 3 problems:"
    for number, (line, part) in enumerate(zip(lines, (
        "events.parquet: [item_id] missing column", "items.parquet: [item_id] missing column",
        "[data.cuts.head] the head window holds no purchase event",
    ), strict=True), start=1):  # fmt: skip
        assert line.startswith(f"  {number}. ") and part in line and "Fix: " in line
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_what_it_found_and_warns_of(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_log(tmp_path / "log", tiny_events().with_columns(REQUEST_ID=pl.lit("r")), tiny_items())
    with pytest.raises(SystemExit) as end:
        cli.main(["prepare", "--config", str(tiny_recipe_file(tmp_path)), "--dry-run"])
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert "would warn: the events' column `REQUEST_ID` is not read" in out
    assert "would find the event types view " in out
    assert "would find purchase events: " in out


def test_duplicates_are_told_with_their_share(tmp_path: Path) -> None:
    events = tiny_events()
    write_log(tmp_path / "log", pl.concat([events, events, events]), tiny_items())
    prepare_here(tiny_recipe(tmp_path))
    (line,) = (
        each
        for each in prepare.report(Run.open(tiny_recipe(tmp_path)))
        if "duplicates left out" in each
    )
    assert line.startswith("12,370 duplicates left out, 66.7% of the usable rows")
    assert "was an export joined twice" in line
