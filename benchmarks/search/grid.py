"""Train every cell of a grid to its end, and keep all curves: the table that searches are asked of.

    python -m benchmarks.search.grid FOLDER --json benchmarks/search/video_games.json

FOLDER holds a benchmark's Parquet files, see `docs/evaluation.md`. Each cell is trained by one
worker in one process, without Ray; `--processes` of them run side by side.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import add_json, add_overrides, overridden, run_report
from benchmarks.quality.product import write_log
from benchmarks.quality.protocols.folder import open_benchmark
from benchmarks.training.rates import take_users
from ray_jobs import prepare
from ray_jobs.common.cluster import connected
from ray_jobs.common.texts import ensure_store
from recsys.artifacts.run import Run
from recsys.config import Recipe, recipe_from_dict, target_codes, with_settings
from recsys.data.histories import UserEvents
from recsys.evaluation.report import METRIC
from recsys.preparation.prepared import QUESTIONS_DIR
from recsys.text.text_store import TextStore
from recsys.training.build import build_two_tower
from recsys.training.worker import Worker

AXES: dict[str, tuple[Any, ...]] = {
    "train.learning_rate": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
    "train.batch_size": (32, 64, 128),
    "model.dropout": (0.0, 0.3),
}
#: Small enough that a cell takes half a minute; without a head to fit.
SMALL_MODEL = {
    "tuning": "frozen", "dim": 32, "num_layers": 1, "max_history": 20, "side_features": False,
}  # fmt: skip
SMALL_TRAINING = {"windows_per_user": 1, "num_negatives": 256, "valid_rows": 1000}
#: Stream of the generator that orders the users of an epoch.
ORDER = 12


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search.grid", description="All curves of a grid of settings."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a benchmark's files")
    parser.add_argument("--work", type=Path, default=Path("runs/search"), metavar="DIR")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="at once (2)")
    parser.add_argument("--cells", type=int, metavar="N", help="only the first N")
    add_overrides(parser)
    add_json(parser)
    return run_report(run, render, parser.parse_args(argv))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Prepare, and train all cells."""
    work = options.work.absolute()
    benchmark = open_benchmark(options.folder)
    raw: dict[str, Any] = {
        "name": "grid",
        "run_dir": str(work / "run"),
        **write_log(benchmark, work),
        "model": SMALL_MODEL,
        "train": {"num_workers": 1, "epochs": 5, **SMALL_TRAINING},
    }
    recipe = overridden(raw, options.overrides)
    with connected(recipe.ray):
        prepare.execute(Run.open(recipe))
        ensure_store(Run.open(recipe))
    settings = list(cells())[: options.cells]
    started = time.monotonic()
    tasks = [(recipe.resolved(), each) for each in settings]
    found = []
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for cell in pool.imap(_cell, tasks):
            found.append(cell)
            print(f"    {cell['settings']}: {max(cell['curve']):.4f}", flush=True)
    return {
        "folder": options.folder.resolve().name,
        "metric": METRIC,
        "axes": AXES,
        "seed": recipe.seed,
        "wall_s": round(time.monotonic() - started, 1),
        "cells": found,
    }


def cells() -> Iterator[dict[str, Any]]:
    """All combinations of the axes' values."""
    for values in itertools.product(*AXES.values()):
        yield dict(zip(AXES, values, strict=True))


def _cell(task: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    raw, settings = task
    torch.set_num_threads(1)
    started = time.process_time()
    curve = [round(value, 5) for value in curve_of(with_settings(recipe_from_dict(raw), settings))]
    return {"settings": settings, "curve": curve, "cpu_s": round(time.process_time() - started, 1)}


def curve_of(recipe: Recipe) -> Iterator[float]:
    """Validation nDCG@10 after each epoch of a training in this process."""
    run = Run.open(recipe)
    prepared, codes = run.prepared, target_codes(recipe)
    store = TextStore.open(run.text_store_folder)
    model, item_rows = build_two_tower(recipe, prepared, "head")
    model.items.start_from(store.vectors, recipe.model.whitening)
    shared = prepared.folder / QUESTIONS_DIR / run.text_store_folder.name
    worker = Worker(recipe, prepared, store, model, item_rows, shared=shared)
    _, valid = prepared.questions(
        "valid", codes, shards=prepared.shards, most=recipe.train.valid_rows, seed=recipe.seed
    )
    users, size = prepared.users(prepared.shards), recipe.train.batch_size
    steps = -(-len(users) // size)
    for _ in range(recipe.train.epochs):
        worker.train_epoch(_batches(users, worker, size), steps * recipe.train.epochs)
        gain, count = worker.validate(valid)
        yield gain / count


def _batches(users: UserEvents, worker: Worker, size: int) -> Iterator[UserEvents]:
    order = worker.rng(ORDER).permutation(len(users))
    for begin in range(0, len(users), size):
        yield take_users(users, order[begin : begin + size])


def render(report: dict[str, Any]) -> list[str]:
    """The best and the worst cells."""
    ranked = sorted(report["cells"], key=lambda cell: -max(cell["curve"]))
    lines = [f"{len(ranked)} cells in {report['wall_s']:.0f} s, best {METRIC} of an epoch"]
    return lines + [f"{max(each['curve']):.4f}  {each['settings']}" for each in ranked]


if __name__ == "__main__":
    sys.exit(main())
