"""The whole way in one cluster: prepare (-> pretrain) -> tune -> embed -> evaluate -> promote.

python -m ray_jobs.pipeline --config recipes/demo.yaml
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from ray_jobs import embed, evaluate, prepare, pretrain, promote, tune
from ray_jobs.common.cluster import connected
from recsys.artifacts.lineage import check_start
from recsys.config import Recipe
from recsys.errors import GateRefused

STAGES = {
    "prepare": prepare,
    "pretrain": pretrain,
    "tune": tune,
    "embed": embed,
    "evaluate": evaluate,
    "promote": promote,
}


def plan(recipe: Recipe) -> list[str]:
    """What a run would do."""
    check_start(recipe)
    adapt = pretrain.steps(recipe) if recipe.pretrain.epochs else []
    last = "embed, evaluate and promote the winner"
    return [*prepare.plan(recipe), *adapt, *tune.steps(recipe), last]


def _names(recipe: Recipe) -> list[str]:
    """The stages on this recipe's way."""
    return [name for name in STAGES if name != "pretrain" or recipe.pretrain.epochs]


def run(recipe: Recipe) -> Path:
    """Run every stage; the output of the last."""
    return stages(recipe)[1]


def stages(recipe: Recipe, *, strict: bool = True) -> tuple[dict[str, float], Path]:
    """Run every stage in one Ray cluster; the seconds each took, and the last one's output.

    Args:
        recipe: the recipe.
        strict: let a refusal at the gate end the run.

    Raises:
        BundleError: the registry holds another product's line; hours before `promote` would say so.
    """
    check_start(recipe)
    seconds = {}
    output = recipe.root
    with connected(recipe.ray, dashboard=True):
        names = _names(recipe)
        for number, name in enumerate(names, start=1):
            job = STAGES[name]
            print(f"[{number}/{len(names)}] {name}", flush=True)
            started = time.monotonic()
            try:
                output = job.run(recipe)
            except GateRefused as refused:
                # The run is whole, its bundle is kept; the service goes on with the incumbent.
                if strict:
                    raise
                print(f"    {refused}", flush=True)
                output = recipe.root
            seconds[name] = time.monotonic() - started
            for line in job.report(recipe):
                print(f"    {line}" if line else "")
            print(f"    {seconds[name]:.0f} s", flush=True)
    return seconds, output


def report(recipe: Recipe) -> list[str]:
    """The evaluation, once more."""
    data = json.loads((recipe.root / evaluate.REPORT_FILE).read_text())
    return [f"bundle {data['bundle']}", *promote.report(recipe)]


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("pipeline")
