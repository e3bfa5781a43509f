"""The folder that a benchmark of training is given, prepared: its options and its texts' states."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.command import add_json, add_overrides, overridden
from benchmarks.quality.product import write_log
from benchmarks.quality.protocols.benchmark import PROTOCOLS, Benchmark
from benchmarks.quality.protocols.folder import open_benchmark
from benchmarks.training.ways import say
from ray_jobs import prepare
from ray_jobs.common.cluster import connected
from ray_jobs.common.texts import ensure_store
from recsys.artifacts.run import Run
from recsys.config import Recipe
from recsys.preparation.prepared import Prepared
from recsys.text.text_store import TextStore


def add_data_options(parser: argparse.ArgumentParser, benchmark: str) -> None:
    """The options that `data_of` reads."""
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="default: what the folder allows")
    add_json(parser)
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help=f"where data are kept (runs/{benchmark}/<name>)"
    )
    add_overrides(parser)


def data_of(
    options: argparse.Namespace, benchmark: str
) -> tuple[Benchmark, Recipe, Prepared, TextStore]:
    """The folder that a benchmark is given, prepared; see `add_data_options`."""
    name = options.folder.resolve().name
    given = open_benchmark(options.folder, protocol=options.protocol)
    work = (options.work or Path("runs") / benchmark / name).absolute()
    raw: dict[str, Any] = {
        "name": benchmark,
        "run_dir": str(work / "run"),
        **write_log(given, work),
    }
    recipe = overridden(raw, options.overrides)
    say(f"{name}: preparing {given.events.height:,} events")
    return given, recipe, *prepared_data(recipe)


def prepared_data(recipe: Recipe) -> tuple[Prepared, TextStore]:
    """The prepared data and the text store; Ray has ended when they are there."""
    with connected(recipe.ray):
        prepare.execute(Run.open(recipe))
        prepared = Prepared.of(recipe)
        return prepared, ensure_store(Run.open(recipe))
