"""The yardstick itself, on the small shop: the whole way, and what it says of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tiny import tiny_log, tiny_settings

from benchmarks.check import read_expected
from benchmarks.quality import measure
from benchmarks.quality.judging import Noted, gains_of
from benchmarks.quality.questions import questions_of
from benchmarks.quality.tables import beside
from recsys.artifacts.bundle import Bundle
from recsys.config import recipe_from_dict
from recsys.data.histories import Histories
from recsys.evaluation.report import COLUMNS
from recsys.recommender.loading import load_scorer
from recsys.schema import EVENT_CODE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quality")


def settings(folder: Path) -> list[str]:
    """A recipe that trains in seconds, as overrides."""
    raw = tiny_settings(folder)
    picked = {section: raw[section] for section in ("model", "train", "embed", "evaluate")}
    picked["train"] |= {"epochs": 1}
    picked["data"] = {"max_tokens": 16}
    picked["ray"] = raw["ray"]
    return [
        f"--set={section}.{key}={json.dumps(value)}"
        for section, values in picked.items()
        for key, value in values.items()
    ]


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_a_strange_folder_goes_the_whole_way(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tiny_log(folder / "log")
    report = folder / "report.json"
    small = read_expected()["small"]
    more = ["--work", str(folder / "work"), "--json", str(report), *settings(folder)]
    assert measure.main([str(log), *small.arguments, *more]) == 0
    data = json.loads(report.read_text())
    assert [figure.line(data) for figure in small.figures if not figure.holds(data)] == []
    assert data["protocol"] == "time"
    assert len(data["seeds"]) == 2
    rows = {(row["model"], row["slice"], row["metric"]): row for row in data["rows"]}
    models = ["raycommend", "popularity", "last_item", "zero_shot"]
    for model in models:
        row = rows[model, "all", "ndcg@10"]
        assert row["low"] <= row["value"] <= row["high"]
        assert row["num_rows"] == data["num_questions"]
        assert 0 < rows[model, "all", "coverage@10"]["value"] <= 1
        assert data["cost"][model]["seconds"] > 0
    assert rows["raycommend", "all", "ndcg@10"]["value"] == pytest.approx(
        sum(data["seeds"]) / 2, abs=1e-6
    )
    assert rows["popularity", "all", "coverage@10"]["value"] == pytest.approx(10 / 40)
    assert data["response"] == []
    printed = capsys.readouterr().out
    for model in models:
        assert f"\n{model} " in printed
    assert "chosen on validation" in printed


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_texts_alone(folder: Path) -> None:
    """Without ids and side features the bundle's score is the cosine and nothing else."""
    work, report = folder / "text", folder / "text.json"
    arguments = [
        str(tiny_log(folder / "log")), "--seeds", "1", "--trials", "1", "--work", str(work),
        "--text-only", "--baselines", "none", "--json", str(report), *settings(folder),
        "--set=train.retrain=false",
    ]  # fmt: skip
    assert measure.main(arguments) == 0
    data = json.loads(report.read_text())
    assert {row["model"] for row in data["rows"]} == {"raycommend"}
    assert data["gains"] == {}
    scorer = load_scorer(Bundle.open(work / "seed-1" / "bundle"))
    history = Histories.of([3, 5], [EVENT_CODE["purchase"]] * 2, [10, 20], 100)
    cosines = (scorer.states(history) @ scorer.vectors.T).numpy()
    temperature = data["recipe"]["model"]["temperature"]
    np.testing.assert_allclose(scorer.scores(history), cosines / temperature, atol=1e-4)


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_labels_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A labelled log is measured without training anything."""
    log, report = tiny_log(folder / "labelled"), folder / "labelled.json"
    events = pl.read_parquet(log / "events.parquet")
    liked = (pl.col("event_type") == "purchase").cast(pl.Int64).alias("rating")
    events.with_columns(liked).write_parquet(log / "events.parquet")
    arguments = [
        str(log), "--response-only", "--work", str(folder / "labels"), "--json", str(report),
        *settings(folder),
    ]  # fmt: skip
    assert measure.main(arguments) == 0
    data = json.loads(report.read_text())
    assert "rows" not in data
    assert {row["model"] for row in data["response"]} == {
        "raycommend", "item mean", "item + user mean",
    }  # fmt: skip
    assert not (folder / "labels" / "seed-1" / "bundle").exists()
    assert "\nraycommend " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--response-only"], "no labels"),
        (["--protocol", "splits"], "splits"),
        (["--baselines", "magic"], "magic"),
        (["--set", "train.epoch=3"], "train.epochs"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tiny_log(folder / "again")
    assert measure.main([str(log), "--work", str(folder / "none"), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_gain_has_a_ratio_only_with_an_interval() -> None:
    one = np.full((22, len(COLUMNS)), 0.5, dtype=np.float32)
    values = {"raycommend": one, "sasrec": one / 2, "popularity": one * 0}
    recipe = recipe_from_dict(
        {
            "name": "q",
            "data": {"source": "x", "cuts": {"valid": "2024-03-01", "test": "2024-04-01"}},
        }
    )
    few = gains_of(values, np.arange(22) % 2, recipe)["all/ndcg@10"]
    assert json.loads(json.dumps(few, allow_nan=False))["judged"] is False
    assert beside(few) == (
        "beside sasrec not judged: 2 users have rows to compare, fewer than 20 prove nothing"
    )
    alone = gains_of(values, np.zeros(22), recipe)["all/ndcg@10"]
    assert (alone["low"], alone["high"]) == (None, None)
    assert "1 user has" in beside(alone)
    enough = gains_of(values, np.arange(22), recipe)["all/ndcg@10"]
    assert beside(enough) == ("2.00 x sasrec, paired difference +0.2500 [+0.2500, +0.2500]")
    nothing = {name: value for name, value in values.items() if name != "sasrec"}
    gain = gains_of(nothing, np.arange(22), recipe)["all/ndcg@10"]
    assert beside(gain) == (
        "popularity finds nothing, paired difference +0.5000 [+0.5000, +0.5000]"
    )


def test_coverage_counts_the_items_of_all_lists() -> None:
    class Fixed:
        name = "fixed"

        def scores(self, histories: object) -> object:
            return np.tile(np.arange(40, dtype=np.float32), (3, 1))

    noted = Noted(Fixed())  # type: ignore[arg-type]
    noted.scores(None)  # type: ignore[arg-type]
    assert noted.coverage == 10 / 40
    assert noted.name == "fixed"


def test_questions_of_no_rows() -> None:
    rows = pl.DataFrame(
        schema={
            "user_id": pl.String, "item_id": pl.String, "history": pl.List(pl.String),
            "times": pl.List(pl.Datetime("us", "UTC")), "codes": pl.List(pl.Int8),
            "now": pl.Datetime("us", "UTC"),
        }
    )  # fmt: skip
    assert len(questions_of(rows, ["a"])) == 0
