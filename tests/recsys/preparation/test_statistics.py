"""Counts of buckets add up, whatever is in memory at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.preparation import statistics
from recsys.preparation.build import DAYS_FILE, counts_file
from recsys.preparation.prepared import DAYS_FILE as ALL_DAYS
from recsys.preparation.prepared import STATS_FILE
from recsys.preparation.relate import CUTS
from recsys.preparation.statistics import write_statistics

STATS = [
    "num_events", "num_targets", "num_recent", "num_week", "num_day", "num_users",
    "num_users_week", "num_users_day",
]  # fmt: skip


@pytest.fixture
def buckets(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    folders = [tmp_path / f"bucket-{number}" for number in range(3)]
    for folder in folders:
        folder.mkdir()
        days = pl.DataFrame(
            {"day": rng.integers(0, 9, 60), "item_row": rng.integers(0, 5, 60)},
            schema={"day": pl.Int32, "item_row": pl.Int32},
        ).unique()
        numbers = {name: pl.Series(rng.integers(0, 9, days.height)) for name in
                   ("events", "targets", "buyers")}  # fmt: skip
        days.with_columns(**numbers).sort("day", "item_row").write_parquet(folder / DAYS_FILE)
        for cut in CUTS:
            items = np.unique(rng.integers(0, 9, 5)).astype(np.int32)
            counts = pl.DataFrame({"item_row": items}).with_columns(
                *(pl.lit(int(rng.integers(9)), pl.Int64).alias(name) for name in STATS),
                as_of=pl.lit(cut),
            )
            counts.write_parquet(folder / counts_file(cut))
    return folders


@pytest.mark.parametrize("rows_at_once", [1, 40, 10**6])
def test_they_are_the_sums_of_all_rows(
    buckets: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    monkeypatch.setattr(statistics, "ROWS_AT_ONCE", rows_at_once)
    write_statistics(tmp_path, buckets, 9)
    whole = pl.concat([pl.read_parquet(folder / DAYS_FILE) for folder in buckets])
    expected = whole.group_by("day", "item_row").sum().sort("day", "item_row")
    assert pl.read_parquet(tmp_path / ALL_DAYS).equals(expected)
    counts = pl.concat(
        [pl.read_parquet(folder / counts_file(cut)) for folder in buckets for cut in CUTS]
    )
    expected = counts.group_by("as_of", "item_row").agg(pl.col(STATS).sum())
    assert pl.read_parquet(tmp_path / STATS_FILE).equals(expected.sort("as_of", "item_row"))
