"""A benchmark through the product's own jobs: prepare -> tune (or train) -> embed."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

from benchmarks.command import overridden
from benchmarks.quality.protocols.benchmark import Benchmark
from ray_jobs import embed, prepare, pretrain, train, tune
from recsys.artifacts.run import Run
from recsys.config import Recipe, searched, with_settings
from recsys.preparation.prepared import Prepared

#: No item has so many events: with it as the least number, none has an id vector.
NO_IDS = 2**31
#: Users are sharded and sampled by pseudonym: whoever repeats a run needs the same ones. The data
#: of a benchmark are no secret, and so neither is their key.
KEY, KEY_ENV = "a key that everybody knows", "RAYCOMMEND_BENCHMARK_KEY"


def write_log(benchmark: Benchmark, work: Path) -> dict[str, Any]:
    """Write a benchmark's log into a folder; returns the sections of a recipe that read it."""
    benchmark.write(work / "log")
    (work / "pseudonym.key").write_text(KEY)
    return {
        "data": {
            "source": str(work / "log"),
            "cuts": benchmark.cuts,
            "target_events": list(benchmark.targets),
            "num_buckets": 4,
            # Published splits, and order without time, know no day on which to count again.
            "count_every_days": 1 if benchmark.protocol == "time" else None,
            "max_quarantine_fraction": 0.5,
        },
        "privacy": {"key_env": KEY_ENV, "key_file": str(work / "pseudonym.key")},
    }


def recipe_of(
    sections: dict[str, Any], name: str, work: Path, options: argparse.Namespace, seed: int
) -> Recipe:
    """The product's defaults, more patient, for logs smaller than a shop's."""
    raw: dict[str, Any] = {
        "name": "".join(c if c.isalnum() else "-" for c in name).strip("-") or "quality",
        "seed": seed,
        "run_dir": str(work / f"seed-{seed}"),
        **copy.deepcopy(sections),
        "train": {"epochs": 12, "retrain": True},
        "tune": {"num_trials": options.trials},
    }
    if options.text_only:
        raw["model"] = {"min_events_for_id": NO_IDS, "side_features": False, "item_fields": []}
    return overridden(raw, options.overrides)


def trained(recipe: Recipe, chosen: Recipe | None, work: Path) -> tuple[Prepared, Recipe]:
    """Prepare and train; with `chosen`, under its settings of what was searched."""
    # Texts are the same for every seed, and so is their store.
    recipe.root.mkdir(parents=True, exist_ok=True)
    (work / "text_store").mkdir(exist_ok=True)
    link = recipe.root / "text_store"
    if not link.exists():
        link.symlink_to(work / "text_store")
    prepare.execute(Run.open(recipe))
    prepared = Prepared.of(recipe)
    if recipe.pretrain.epochs:
        pretrain.execute(Run.open(recipe))
        print("\n".join(f"    {line}" for line in pretrain.report(Run.open(recipe))), flush=True)
    if chosen is None:
        tune.execute(Run.open(recipe))
    else:
        train.execute(Run.open(with_settings(recipe, searched(chosen))))
    embed.execute(Run.open(recipe))
    return prepared, Run.open(recipe).winner.recipe
