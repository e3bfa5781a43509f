"""The like probability on labelled folders; all of them are generated."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.quality import like_model
from benchmarks.quality.protocols.benchmark import IS_TEST, Benchmark
from benchmarks.quality.protocols.folder import open_benchmark
from benchmarks.quality.tables import render
from recsys.schema import Col

START = dt.datetime(2024, 5, 1, tzinfo=dt.UTC)
NUM_ITEMS = 30


def labelled_log(num_users: int = 40, seed: int = 0) -> pl.DataFrame:
    """Users of differing leniency rate items of differing quality, several in one second."""
    rng = np.random.default_rng(seed)
    lenient, good = rng.normal(0, 1.5, num_users), rng.normal(0, 1, NUM_ITEMS)
    user = rng.integers(num_users, size=3000)
    item = rng.integers(NUM_ITEMS, size=3000)
    chance = 1 / (1 + np.exp(-(lenient[user] + good[item])))
    hours = np.sort(rng.integers(0, 24 * 100, size=3000) // 8 * 8)
    return pl.DataFrame(
        {
            Col.user: [f"u{n}" for n in user],
            Col.item: [f"i{n:02d}" for n in item],
            Col.timestamp: [START + dt.timedelta(hours=int(hour)) for hour in hours],
            "rating": (rng.random(3000) < chance).astype(np.int64),
        }
    ).unique([Col.user, Col.item, Col.timestamp], keep="first", maintain_order=True)


def splits_of(events: pl.DataFrame, *, last: int | None = None) -> pl.DataFrame:
    """Splits by day 70 and 85, each row with its user's likes in rows before it in the file."""
    liked: dict[str, list[str]] = {}
    rows = []
    for user, item, time, label in events.rows():
        day = (time - START).days
        split = "train" if day < 70 else "valid" if day < 85 else "test"
        history = liked.setdefault(user, [])
        rows.append((split, user, history[-last:] if last else list(history), item, label, time))
        if label:
            history.append(item)
    names = ["split", Col.user, "history", Col.item, "label", Col.timestamp]
    return pl.DataFrame(rows, schema=names, orient="row")


def opened(folder: Path, events: pl.DataFrame, splits: pl.DataFrame | None = None) -> Benchmark:
    folder.mkdir(exist_ok=True)
    events.write_parquet(folder / "events.parquet")
    items = events[Col.item].unique().sort()
    titles = pl.DataFrame({Col.item: items, Col.title: [f"thing {item}" for item in items]})
    titles.write_parquet(folder / "items.parquet")
    if splits is not None:
        splits.write_parquet(folder / "splits.parquet")
    return open_benchmark(folder)


def measured(benchmark: Benchmark) -> dict[str, dict[str, dict[str, float]]]:
    vectors = np.random.default_rng(1).normal(size=(NUM_ITEMS, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = sorted(benchmark.items[Col.item])
    rows = like_model.measure(benchmark, ids, vectors, num_bootstrap=30, seed=1)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        found.setdefault(row["model"], {})[row["metric"]] = row
    return found


def test_the_table_of_published_splits(tmp_path: Path) -> None:
    events = labelled_log()
    splits = splits_of(events)
    benchmark = opened(tmp_path / "d", events, splits)
    found = measured(benchmark)
    assert list(found) == ["raycommend", "raycommend, strict", "item mean", "item + user mean"]
    num_rows = (splits["split"] == "test").sum()
    for row in found.values():
        assert list(row) == list(like_model.METRICS)
        assert row["auc"]["num_rows"] == row["log_loss"]["num_rows"] == num_rows
        assert row["auc"]["low"] <= row["auc"]["value"] <= row["auc"]["high"]
    assert found["raycommend"]["auc"]["value"] > found["item mean"]["auc"]["value"] + 0.05
    assert found["raycommend"]["log_loss"]["value"] < found["item mean"]["log_loss"]["value"]


def test_rows_keep_their_raw_times_and_dislikes(tmp_path: Path) -> None:
    events = labelled_log()
    benchmark = opened(tmp_path / "d", events, splits_of(events))
    assert benchmark.exposures is not None
    keys = [Col.user, Col.item, Col.timestamp]
    same = benchmark.exposures.join(
        events.with_columns(pl.col(Col.timestamp).cast(pl.Datetime("us", "UTC"))),
        on=keys,
    )
    assert same.height == benchmark.exposures.height == events.height
    assert (same["label"] == same["rating"]).all() and set(same["label"]) == {0, 1}
    # What the rankers are asked lies at distinct times; this does not.
    assert benchmark.exposures.select(Col.user, Col.timestamp).is_duplicated().any()


def test_rows_after_the_cut_where_there_are_no_splits(tmp_path: Path) -> None:
    benchmark = opened(tmp_path / "d", labelled_log())
    assert benchmark.exposures is not None
    late = benchmark.exposures.filter(IS_TEST)[Col.timestamp]
    early = benchmark.exposures.filter(~pl.col(IS_TEST))[Col.timestamp]
    assert early.max() < benchmark.cuts["test"] == late.min()  # type: ignore[operator]
    found = measured(benchmark)
    assert list(found) == ["raycommend", "item mean", "item + user mean"]
    assert found["raycommend"]["auc"]["num_rows"] == len(late)


def test_histories_that_are_cut_short_are_not_the_strict_protocol(tmp_path: Path) -> None:
    events = labelled_log()
    short = opened(tmp_path / "d", events, splits_of(events, last=1))
    assert not short.whole_histories
    assert "raycommend, strict" not in measured(short)


def test_strict_reads_no_label_after_training_but_earlier_likes(tmp_path: Path) -> None:
    events = labelled_log()
    splits = splits_of(events)
    benchmark = opened(tmp_path / "d", events, splits)
    assert benchmark.exposures is not None
    # Nobody's dislikes after the training part were ever there.
    likes = benchmark.exposures.filter(
        IS_TEST | (pl.col("label") == 1) | (pl.col(Col.timestamp) < benchmark.cuts["valid"])
    )
    whole = measured(benchmark)
    object.__setattr__(benchmark, "exposures", likes)
    without = measured(benchmark)
    for metric in like_model.METRICS:
        of_strict = [each["raycommend, strict"][metric]["value"] for each in (whole, without)]
        assert of_strict[0] == pytest.approx(of_strict[1], abs=1e-12)
    live = [each["raycommend"]["log_loss"]["value"] for each in (whole, without)]
    assert live[0] != pytest.approx(live[1], abs=1e-6)


def test_a_log_without_labels_or_times_has_no_table(tmp_path: Path) -> None:
    events = labelled_log()
    plain = opened(tmp_path / "d", events.drop("rating"))
    assert plain.exposures is None
    assert like_model.measure(plain, [], np.zeros((0, 8)), num_bootstrap=3, seed=1) == []
    timeless = opened(tmp_path / "e", events.drop(Col.timestamp))
    assert timeless.exposures is None


def test_the_table_is_printed() -> None:
    row = {"model": "raycommend", "slice": "all", "value": 0.75, "low": 0.7, "high": 0.8}
    rows = [row | {"metric": metric, "num_rows": 1234} for metric in like_model.METRICS]
    lines = render({"dataset": "d", "protocol": "time", "response": rows})
    assert "the like probability, 1,234 exposures:" in lines
    assert "0.7500 [0.7000, 0.8000]" in lines[-1]
