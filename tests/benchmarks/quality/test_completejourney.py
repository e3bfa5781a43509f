from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from benchmarks.quality import completejourney
from benchmarks.quality.protocols.folder import open_benchmark
from recsys.schema import Col


@pytest.mark.slow
def test_it_is_a_folder_of_the_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cj"
    assert completejourney.main([str(folder)]) == 0
    assert str(folder) in capsys.readouterr().out
    items = pl.read_parquet(folder / "items.parquet")
    valid, test = (dt.datetime(2017, month, 1, tzinfo=dt.UTC) for month in (11, 12))
    benchmark = open_benchmark(folder, protocol="time", valid=valid, test=test)
    assert benchmark.events.height == 1_469_307
    assert set(benchmark.events[Col.item]) <= set(items[Col.item])
    # Prices are as of a time before the cut.
    assert completejourney.main([str(folder), "--valid", "2017-12-01"]) == 0
    assert not pl.read_parquet(folder / "items.parquet")[Col.price].equals(items[Col.price])


def test_a_date_that_is_none_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        completejourney.main([str(tmp_path), "--valid", "soon"])
    assert "'soon'" in capsys.readouterr().err
