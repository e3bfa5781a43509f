"""Searches replayed over a grid whose best cell is known, and over the stored one."""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.search.grid import AXES, cells
from benchmarks.search.replay import render, run, value_of

STORED = Path(__file__).parents[3] / "benchmarks" / "search" / "video_games.json"


def grid() -> dict[str, Any]:
    """Curves that rise to .1 at a rate of .01 and 16 users, and to less the further from there."""
    axes = {"train.learning_rate": [0.001, 0.01, 0.1], "train.batch_size": [8, 16]}
    found = []
    for rate, size in itertools.product(*axes.values()):
        top = 0.1 - 0.04 * (rate != 0.01) - 0.02 * (size != 16)
        settings = {"train.learning_rate": rate, "train.batch_size": size}
        found.append({"settings": settings, "curve": [top / 2, top * 0.9, top]})
    return {"folder": "made", "metric": "ndcg@10", "axes": axes, "cells": found}


def replayed(path: Path, **options: Any) -> dict[str, Any]:
    given = {"grid": path, "trials": 24, "seeds": 5, "reduction": 3, **options}
    return run(argparse.Namespace(**given))


def test_between_two_rates_a_value_is_interpolated_over_their_logarithm() -> None:
    settings = {"train.learning_rate": 0.01, "train.batch_size": 16}
    assert value_of(grid(), settings) == pytest.approx(0.1)
    settings["train.learning_rate"] = 0.1**1.5
    assert value_of(grid(), settings) == pytest.approx(0.08)


def test_asha_finds_the_best_of_a_grid_whose_curves_never_cross(tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    path.write_text(json.dumps(grid()))
    report = replayed(path)
    assert all(each["of_best"] == pytest.approx(1) for each in report["asha"])
    shares = [each["of_compute"] for each in report["asha"]]
    assert all(1 / 3 <= share <= 1 for share in shares) and min(shares) < 0.9
    assert len(report["tpe"]) == 5 and len(render(report)) == 4 + 5 + 3 + 5 + 1


def test_the_same_seed_replays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    path.write_text(json.dumps(grid()))
    assert replayed(path, seeds=2) == replayed(path, seeds=2)


def test_the_stored_grid_is_whole() -> None:
    stored = json.loads(STORED.read_text())
    assert [cell["settings"] for cell in stored["cells"]] == list(cells())
    assert stored["axes"] == {name: list(values) for name, values in AXES.items()}
    assert {len(cell["curve"]) for cell in stored["cells"]} == {5}
