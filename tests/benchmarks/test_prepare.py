"""The generated log, and what other engines make of it, at a size that takes no time."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from benchmarks import generated_log, shuffles
from benchmarks.generated_log import DAYS, FIRST_DAY, write_generated, write_night
from benchmarks.prepare import measured, render
from recsys.schema import Col


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(generated_log, "ROWS_PER_FILE", 2_000)
    write_generated(tmp_path / "log", 5_000, num_items=300)
    return tmp_path / "log"


def test_a_generated_log_has_its_length_and_its_shape(log: Path) -> None:
    events = pl.read_parquet(f"{log}/events/*.parquet")
    assert events.height == 5_000
    assert len(list((log / "events").iterdir())) == 3
    assert set(events[Col.item]) <= set(pl.read_parquet(log / "items.parquet")[Col.item])
    counts = events[Col.item].value_counts(sort=True)["count"]
    assert counts[0] > 20 * counts.median(), "Zipf's law"
    users = events[Col.user].value_counts(sort=True)["count"]
    assert users[0] > 4 * users.median(), "heavy users"
    write_night(log, 50, of=5_000, num_items=300)
    night = pl.read_parquet(log / "events" / "night.parquet")
    assert night.height == 50
    assert night[Col.timestamp].min() >= FIRST_DAY + dt.timedelta(days=DAYS)
    assert set(night[Col.user]) & set(events[Col.user])


def test_other_engines_build_the_same_histories(log: Path, tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    shuffles.by_duckdb(log, tmp_path / "duckdb", memory_gb=1, threads=1)
    shuffles.by_polars(log, tmp_path / "polars")
    once = pl.read_parquet(f"{log}/events/*.parquet").unique()
    for name, column in (("duckdb", "items"), ("polars", Col.item)):
        found = pl.read_parquet(tmp_path / name / "histories.parquet")
        assert found.height == once[Col.user].n_unique()
        assert found[column].list.len().sum() == once.height


def _fails() -> None:
    raise MemoryError


def test_a_way_that_fails_is_a_line_of_the_report() -> None:
    failed = measured(_fails)
    assert failed["seconds"] is None
    done = {"seconds": 2.0, "cpu_s": 3.0, "peak_gb": 1.0, "steps": {"Split": 1.0}}
    ways = {"full": [done], "duckdb": [failed], "night": [done]}
    report = {"items": 9, "cpus": 2, "memory_gb": 4, "logs": [{"events": 10, "ways": ways}]}
    lines = "\n".join(render(report))
    assert "failed" in lines and "Split 1.0" in lines
