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
from recsys.artifacts.run import Run
from recsys.errors import GateRefused

STAGES = {
    "prepare": prepare,
    "pretrain": pretrain,
    "tune": tune,
    "embed": embed,
    "evaluate": evaluate,
    "promote": promote,
}


def plan(run: Run) -> list[str]:
    """What a run would do."""
    check_start(run.recipe)
    tune.check_settings(run)
    adapt = pretrain.steps(run) if run.recipe.pretrain.epochs else []
    last = "embed, evaluate and promote the winner"
    return [*prepare.plan(run), *adapt, *tune.steps(run), last]


def _names(run: Run) -> list[str]:
    """The stages on this recipe's way."""
    return [name for name in STAGES if name != "pretrain" or run.recipe.pretrain.epochs]


def execute(run: Run) -> Path:
    """Run every stage; the output of the last."""
    return stages(run)[1]


def stages(run: Run, *, strict: bool = True) -> tuple[dict[str, float], Path]:
    """Run every stage in one Ray cluster; the seconds each took, and the last one's output.

    Args:
        run: of the recipe.
        strict: let a refusal at the gate end the run.

    Raises:
        BundleError: the registry holds another product's line; hours before `promote` would say so.
        RaycommendError: `tune` would refuse the recipe, see `tune.check_settings`.
    """
    check_start(run.recipe)
    tune.check_settings(run)
    seconds = {}
    output = run.root
    with connected(run.recipe.ray, dashboard=True):
        names = _names(run)
        for number, name in enumerate(names, start=1):
            job = STAGES[name]
            print(f"[{number}/{len(names)}] {name}", flush=True)
            started = time.monotonic()
            try:
                output = job.execute(run)
            except GateRefused as refused:
                # The run is whole, its bundle is kept; the service goes on with the incumbent.
                if strict:
                    raise
                print(f"    {refused}", flush=True)
                output = run.root
            seconds[name] = time.monotonic() - started
            for line in job.report(run):
                print(f"    {line}" if line else "")
            print(f"    {seconds[name]:.0f} s", flush=True)
    return seconds, output


def report(run: Run) -> list[str]:
    """The evaluation, once more."""
    data = json.loads(run.report_file.read_text())
    return [f"bundle {data['bundle']}", *promote.report(run)]


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("pipeline")
