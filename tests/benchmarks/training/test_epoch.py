"""What an epoch and an evaluation cost: the report on a small shop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import tiny_shop

from benchmarks.training import epoch

pytestmark = pytest.mark.slow


def test_every_part_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop, report = tiny_shop(tmp_path), tmp_path / "report.json"
    options = ["--rounds", "2", "--steps", "2", "--baskets", "20", "--json", str(report)]
    assert epoch.main([str(shop.recipe.root), *options]) == 0
    data = json.loads(report.read_text())
    assert data["later"].keys() == data["first"].keys()
    assert all(part["low"] <= part["median"] <= part["high"] for part in data["later"].values())
    evaluation = data["evaluation"]
    assert evaluation["baskets"] == 20
    assert evaluation["over_floor"].keys() == {"raycommend", *epoch.BASELINES}
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*epoch.BASELINES, epoch.FLOOR, "validation"))


def test_a_run_that_is_not_prepared_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert epoch.main([str(tmp_path)]) == 2
    assert "recsys prepare" in capsys.readouterr().err
