"""The command on a small log in the columns of KuaiRand-Pure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.quality.outcome_heads import CUT, _cosines, main
from recsys.outcome_heads.rates.item_fields import ItemFields
from recsys.outcome_heads.rates.tables import DAY_US


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    size, num_users, num_items = 3_000, 60, 30
    users, items = rng.integers(num_users, size=size), rng.integers(num_items, size=size)
    clicked = (rng.random(size) < 0.2 + 0.5 * items / num_items).astype(np.int8)
    us = np.sort(CUT - 4 * DAY_US + rng.integers(6 * DAY_US, size=size))
    pl.DataFrame(
        {
            "request_id": [f"v{n}" for n in range(size)],
            "user_id": [str(n) for n in users],
            "item_id": [str(n) for n in items],
            "timestamp": pl.Series(us).cast(pl.Datetime("us", "UTC")),
            "is_click": clicked,
            "long_view": clicked * (rng.random(size) < 0.7).astype(np.int8),
            "dwell_ms": rng.integers(0, 60_000, size=size),
            "tab": np.ones(size, np.int16),
        }
    ).write_parquet(tmp_path / "exposures.parquet")
    seen = [[str(n) for n in rng.integers(num_items, size=5)] for _ in range(num_users)]
    pl.DataFrame(
        {"user_id": [str(n) for n in range(num_users)], "watched": seen, "long_watched": seen}
    ).write_parquet(tmp_path / "histories.parquet")
    pl.DataFrame(
        {
            "item_id": [str(n) for n in range(num_items)],
            "author_id": [str(n // 2) for n in range(num_items)],
            "tags": [f"{n % 3},{n % 5}" for n in range(num_items)],
            "duration_ms": rng.uniform(5_000, 90_000, size=num_items),
        }
    ).write_parquet(tmp_path / "items.parquet")
    return tmp_path


def test_the_report_judges_the_heads_beside_all_baselines(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    assert main([str(folder), "--json", str(tmp_path / "out.json")]) == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["rows"]["before"] + report["rows"]["judged"] == 3_000
    # Of the four days before the cut the first is counted only.
    assert 0.7 < report["rows"]["fitted"] / report["rows"]["before"] < 0.8
    for head in report["heads"].values():
        assert set(head["models"]) == {
            "heads", "LightGBM", "item rate", "user rate", "sum of logits"
        }  # fmt: skip
        assert head["models"]["heads"]["auc"]["value"] > 0.55
        assert set(head["better_than"]) == set(head["models"]) - {"heads"}
    assert report["dwell"]["mae_s"] > 0


def test_an_item_scores_by_its_cosine_to_the_user_s(folder: Path) -> None:
    histories = pl.read_parquet(folder / "histories.parquet")
    items = ItemFields.of(pl.read_parquet(folder / "items.parquet"), [], [])
    rows = pl.read_parquet(folder / "exposures.parquet").head(20)
    watched = [set(each) for each in histories["long_watched"]]

    def watchers(item: str) -> set[int]:
        return {user for user, seen in enumerate(watched) if item in seen}

    for row, found in zip(
        rows.iter_rows(named=True), _cosines(histories, rows, items), strict=True
    ):
        ours, of_item = watched[int(row["user_id"])], watchers(row["item_id"])
        total = sum(
            len(watchers(other) & of_item) / (np.sqrt(len(watchers(other)) * len(of_item)) + 5)
            for other in ours - {row["item_id"]}
        )
        assert found == pytest.approx(total / np.sqrt(len(ours) + 5), rel=1e-4, abs=1e-6)
