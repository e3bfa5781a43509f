"""`recsys runs` and `recsys compare`, on runs as the jobs leave them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from object_store import ObjectStore
from tiny import tiny_recipe

from recsys.artifacts.overview import at_hand, compare, runs_in, table_of
from recsys.artifacts.run import Run
from recsys.config import Recipe, recipe_from_dict
from recsys.errors import DataError
from recsys.evaluation.gate import MIN_USERS
from recsys.preparation.prepared import PREPARED, SUMMARY_FILE
from recsys.storage.location import Location
from recsys.storage.published import publish

NUM_USERS = 2 * MIN_USERS


def evaluated(folder: Path, recipe: Recipe, gains: np.ndarray) -> Path:
    """A run with a winner and a report whose questions gained so much."""
    raw = recipe.resolved() | {"run_dir": str(folder)}
    run = Run.open(recipe_from_dict(raw))
    folder.mkdir()
    rows = [
        {"model": "raycommend", "slice": "all", "metric": "ndcg@10", "value": float(gains.mean())},
        {"model": "popularity", "slice": "all", "metric": "ndcg@10", "value": 0.01},
    ]
    report = {"bundle": folder.name, "recipe": raw, "rows": rows, "data_fingerprint": "d" * 16}
    run.report_file.write_text(json.dumps(report))
    run.winner_file.write_text(json.dumps({"recipe": raw}))
    pl.DataFrame(
        {
            "user_id": [f"u{number}" for number in range(len(gains))],
            "basket": np.arange(len(gains)),
            "raycommend:ndcg@10": gains,
        }
    ).write_parquet(run.rows_file)
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return tiny_recipe(tmp_path, train={"learning_rate": 0.01})


@pytest.fixture
def gains() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.1, 0.5, NUM_USERS)


def test_each_run_is_a_line(tmp_path: Path, recipe: Recipe, gains: np.ndarray) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    evaluated(folder / "one", recipe, gains)
    (folder / "registry").mkdir()
    heading, line = table_of(runs_in(folder))
    assert heading.split() == ["run", "recipe", "data", "winner", "ndcg@10"]
    winner = ["train.learning_rate", "0.01,", "train.batch_size", "8"]
    expected = ["one", "tiny", "d" * 16, *winner, f"{gains.mean():.4f}"]
    assert line.split() == expected
    registry = Run.open(recipe).registry
    registry.root.mkdir(exist_ok=True)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "bundle.json").write_text("{}")
    registry.add(bundle, "one")
    registry.promote("one")
    assert table_of(runs_in(folder))[1].endswith("  champion")
    registry.add(bundle, "two")
    registry.promote("two")
    registry.promote("one", evidence={"forced": True})
    assert table_of(runs_in(folder))[1].endswith("  champion (forced)")


def test_runs_in_a_store_are_listed_and_compared_as_those_in_a_folder(
    tmp_path: Path, recipe: Recipe, gains: np.ndarray, store: ObjectStore
) -> None:
    folder, place = tmp_path / "runs", Location(f"{store.uri}/runs")
    folder.mkdir()
    for name, more in (("one", 0.0), ("two", 0.01)):
        run = evaluated(folder / name, recipe, gains + more)
        prepared = run / PREPARED
        prepared.mkdir()
        (prepared / SUMMARY_FILE).write_text((run / "winner.json").read_text())
        publish(prepared, place / name / PREPARED)
        for path in run.glob("*.*"):
            (place / name).upload(path, path.name)
    for path in (folder / "two").glob("*.*"):
        path.unlink()
    (place / "two").remove(["report.json", "evaluation_rows.parquet", "winner.json"])
    assert place.folders() == ["one", "two"]
    with at_hand(place) as here:
        assert table_of(runs_in(here)) == table_of(runs_in(folder))
    one = folder / "one"
    with at_hand(place / "one") as here:
        assert compare(here, here) == compare(one, one)
    missing = f"{place}/two/report.json: this run was not evaluated"
    with pytest.raises(DataError, match=missing), at_hand(place / "two") as here:
        compare(one, here)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder") as error:
        runs_in(tmp_path / "nowhere")
    assert "nowhere" in str(error.value)


def test_two_runs_are_compared_question_by_question(
    tmp_path: Path, recipe: Recipe, gains: np.ndarray
) -> None:
    noise = np.random.default_rng(1).normal(0.05, 0.01, NUM_USERS)
    raw = recipe.resolved()
    raw["train"]["learning_rate"] = 0.02
    one = evaluated(tmp_path / "one", recipe, gains)
    two = evaluated(tmp_path / "two", recipe_from_dict(raw), gains + noise)
    lines = compare(one, two)
    assert lines[0].split() == ["metric", "one", "two", "difference"]
    assert lines[1].split()[1:3] == [f"{gains.mean():.4f}", f"{(gains + noise).mean():.4f}"]
    (paired,) = (line for line in lines if "two less one" in line)
    difference = float(paired.split(": ")[1].split()[0])
    assert difference == pytest.approx(noise.mean(), abs=1e-4)
    low, high = paired.split("[")[1].split("]")[0].split(", ")
    # Far narrower than unpaired intervals: the users' own differences cancel.
    assert 0 < float(low) < difference < float(high) and float(high) - float(low) < 0.01
    assert "  train.learning_rate: 0.01 -> 0.02" in lines
    assert not any("train.epochs" in line for line in lines)


def test_runs_without_a_question_in_common_are_not_paired(
    tmp_path: Path, recipe: Recipe, gains: np.ndarray
) -> None:
    one, two = (evaluated(tmp_path / name, recipe, gains) for name in ("one", "two"))
    rows = pl.read_parquet(two / "evaluation_rows.parquet")
    rows.with_columns(pl.col("user_id") + "x").write_parquet(two / "evaluation_rows.parquet")
    assert any("no question in common" in line for line in compare(one, two))


def test_a_run_that_was_not_evaluated_is_named(
    tmp_path: Path, recipe: Recipe, gains: np.ndarray
) -> None:
    one = evaluated(tmp_path / "one", recipe, gains)
    (tmp_path / "two").mkdir()
    with pytest.raises(DataError, match="not evaluated") as error:
        compare(one, tmp_path / "two")
    assert "two" in str(error.value) and "recsys evaluate" in error.value.fix
