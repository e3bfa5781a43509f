"""Searches replayed over the curves of a grid that was trained in full: nothing is trained.

    python -m benchmarks.search.replay benchmarks/search/video_games.json

TPE beside random search: how many trials each takes to the best that the random search found. A
trial's value is its best epoch, between two learning rates of the grid interpolated over their
logarithm. ASHA beside the whole grid: what it finds of the best, and the epochs it trains, with
the cells in a random order, one after another. Both are the product's own, see
`ray_jobs.searching.drawing`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.command import add_json, run_report
from ray_jobs.searching.drawing import algorithm, param_space, scheduler
from recsys.config import Recipe, recipe_from_dict
from recsys.evaluation.report import METRIC
from recsys.storage.reading import read_json

RATE = "train.learning_rate"
#: A recipe that holds no more than a search needs.
CUTS = {"valid": "2024-01-01", "test": "2024-02-01"}
LEAST = {"name": "replay", "data": {"source": "x", "cuts": CUTS}}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search.replay", description="Searches over a grid's curves."
    )
    parser.add_argument("grid", type=Path, metavar="FILE", help="of benchmarks.search.grid")
    parser.add_argument("--trials", type=int, default=40, metavar="N", help="of a search (40)")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="(5)")
    parser.add_argument("--reduction", type=int, default=3, metavar="N", help="of ASHA (3)")
    add_json(parser)
    return run_report(run, render, parser.parse_args(argv))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Replay all searches."""
    grid = read_json(options.grid, "run benchmarks.search.grid", {"axes": dict, "cells": list})
    seeds = range(1, options.seeds + 1)
    return {
        "folder": grid["folder"],
        "metric": grid["metric"],
        "cells": len(grid["cells"]),
        "trials": options.trials,
        "tpe": [_tpe_beside_random(grid, options.trials, seed) for seed in seeds],
        "asha": [_asha(grid, options.reduction, seed) for seed in seeds],
    }


def _tpe_beside_random(grid: dict[str, Any], trials: int, seed: int) -> dict[str, Any]:
    found = {
        search: _values(grid, _recipe(grid, search=search, num_trials=trials, seed=seed))
        for search in ("random", "tpe")
    }
    best = max(found["random"])
    return {
        "seed": seed,
        "random_best": best,
        "tpe_best": max(found["tpe"]),
        "random_trials": 1 + found["random"].index(best),
        "tpe_trials": next((n for n, value in enumerate(found["tpe"], 1) if value >= best), None),
    }


def _recipe(grid: dict[str, Any], *, seed: int, **tune: Any) -> Recipe:
    """A recipe that searches the grid's axes, the learning rate from its least to its greatest."""
    axes = grid["axes"]
    space: dict[str, Any] = {name: {"choice": values} for name, values in axes.items()}
    space[RATE] = {"loguniform": [min(axes[RATE]), max(axes[RATE])]}
    epochs = len(grid["cells"][0]["curve"])
    return recipe_from_dict(
        LEAST | {"seed": seed, "tune": {"space": space, **tune}, "train": {"epochs": epochs}}
    )


def _values(grid: dict[str, Any], recipe: Recipe) -> list[float]:
    """Values of the trials of a search, one after another."""
    space, values = param_space(recipe), []
    if recipe.tune.search == "random":
        rng = np.random.RandomState(recipe.seed)
        for _ in range(recipe.tune.num_trials):
            drawn = {name: domain.sample(random_state=rng) for name, domain in space.items()}
            values.append(value_of(grid, drawn))
        return values
    drawing = algorithm(recipe, 1)
    drawing.set_search_properties(METRIC, "max", space)
    for trial in range(recipe.tune.num_trials):
        value = value_of(grid, drawing.suggest(str(trial)))
        values.append(value)
        drawing.on_trial_complete(str(trial), {METRIC: value, "training_iteration": 1})
    return values


def value_of(grid: dict[str, Any], settings: dict[str, Any]) -> float:
    """Best epoch under some settings, interpolated over the logarithm of the learning rate."""
    others = {name: value for name, value in settings.items() if name != RATE}
    points = sorted(
        (math.log(cell["settings"][RATE]), max(cell["curve"]))
        for cell in grid["cells"]
        if all(cell["settings"][name] == value for name, value in others.items())
    )
    rates, values = zip(*points, strict=True)
    return float(np.interp(math.log(settings[RATE]), rates, values))


def _asha(grid: dict[str, Any], reduction: int, seed: int) -> dict[str, Any]:
    """ASHA over all cells in a random order."""
    cells = [grid["cells"][n] for n in np.random.default_rng(seed).permutation(len(grid["cells"]))]
    stopping = scheduler(_recipe(grid, seed=seed, reduction_factor=reduction))
    stopping.set_search_properties(METRIC, "max")
    best, epochs = 0.0, 0
    for number, cell in enumerate(cells):
        trial = SimpleNamespace(trial_id=str(number))
        stopping.on_trial_add(None, trial)
        for epoch, value in enumerate(cell["curve"], start=1):
            epochs, best = epochs + 1, max(best, value)
            if stopping.on_trial_result(None, trial, {"epoch": epoch, METRIC: value}) == "STOP":
                break
    full = max(max(cell["curve"]) for cell in cells)
    return {
        "seed": seed,
        "of_best": best / full,
        "of_compute": epochs / sum(len(cell["curve"]) for cell in cells),
    }


def render(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    trials, tpe, asha = report["trials"], report["tpe"], report["asha"]
    lines = [
        f"{report['folder']}, {report['cells']} cells, {report['metric']}, replayed",
        "",
        f"trials to the best of {trials} random ones",
        f"{'seed':>4}{'best':>9}{'random':>9}{'TPE':>9}{'TPE best':>10}",
    ]
    for each in tpe:
        lines.append(
            f"{each['seed']:>4}{each['random_best']:>9.4f}{each['random_trials']:>9}"
            f"{each['tpe_trials'] or 'never':>9}{each['tpe_best']:>10.4f}"
        )
    taken = [each["tpe_trials"] or math.inf for each in tpe]
    lines += [
        f"TPE: median {np.median(taken):g} trials; {sum(each <= trials / 2 for each in taken)} of "
        f"{len(taken)} within {trials // 2}",
        "",
        f"ASHA{'seed':>6}{'of the best':>13}{'of the epochs':>15}",
    ]
    for each in asha:
        lines.append(f"{each['seed']:>10}{each['of_best']:>13.2%}{each['of_compute']:>15.0%}")
    best, epochs = (np.median([each[name] for each in asha]) for name in ("of_best", "of_compute"))
    return [*lines, f"ASHA: median {best:.2%} of the best for {epochs:.0%} of the epochs"]


if __name__ == "__main__":
    sys.exit(main())
