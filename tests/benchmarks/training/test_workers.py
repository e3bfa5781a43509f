"""Ray Train beside bare processes, and two workers beside one: the report on a small shop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import tiny_shop

from benchmarks.training import workers

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


def test_all_ways_take_the_same_steps_and_are_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command itself holds the losses of both ways with two workers against each other."""
    shop, path = tiny_shop(tmp_path), tmp_path / "report.json"
    assert workers.main([str(shop.recipe.root), "--steps", "1000"]) == 2
    assert "whole steps" in capsys.readouterr().err
    options = ["--rounds", "1", "--steps", "3", "--json", str(path)]
    assert workers.main([str(shop.recipe.root), *options]) == 0
    report = json.loads(path.read_text())
    for way in (workers.TWO, workers.BARE, workers.ONE):
        told = report["ways"][way]
        assert told["users_per_s"]["median"] > 0 and told["cpu_ms_a_user"]["median"] > 0
        assert 0 <= told["waiting"]["median"] < 1
        assert told["pss_mb"]["median"] > 100
    assert len(report["ratios"]) == 3
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*report["ways"], *report["ratios"]))
