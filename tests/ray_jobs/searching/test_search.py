"""What a search would do, and one that runs out of time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tiny import prepare_here, tiny_log, tiny_recipe

from ray_jobs import tune
from recsys.artifacts.run import Run
from recsys.errors import DataError, RecipeError

ROOT = Path(__file__).parents[3]


def test_the_plan_tells_space_scheduler_and_trials_at_once(tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "tune": {"search": "tpe", "num_trials": 6, "time_budget_s": 60},
        "ray": {"address": "local", "num_cpus": 1},
    }
    lines = tune.steps(Run.open(tiny_recipe(tmp_path, **sections)))
    assert lines[1] == "run 6 trials of at most 2 epochs, in at most 60 s, 1 at once"
    assert lines[2:5] == [
        "draw train.learning_rate (tpe): 0.0003 to 0.005, log-uniform",
        "draw train.batch_size (tpe): one of 8, 16",
        "stop trials (asha): ASHA goes on with one in 2 after epoch 1 and later",
    ]


def test_the_plan_refuses_what_the_machine_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="tune.max_concurrent"):
        tune.steps(Run.open(tiny_recipe(tmp_path, tune={"max_concurrent": 500})))
    joined = {"address": "auto"}
    lines = tune.steps(Run.open(tiny_recipe(tmp_path, ray=joined)))
    assert "as many as the cluster's free resources hold at once" in lines[1]


def test_what_no_trial_could_be_drawn_from_is_refused_whoever_made_the_recipe(
    tmp_path: Path,
) -> None:
    recipe = tiny_recipe(tmp_path, tune={"space": {"model.drop": {"uniform": [0, 1]}}})
    with pytest.raises(RecipeError, match="did you mean `model.dropout`"):
        tune.plan(Run.open(recipe))


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_a_budget_that_ends_before_the_first_epoch(tmp_path: Path) -> None:
    """Every trial tells so, and gives its CPUs back."""
    import ray

    tiny_log(tmp_path / "log")
    recipe = tiny_recipe(tmp_path, tune={"time_budget_s": 2, "max_concurrent": 1})
    prepare_here(recipe)
    with pytest.raises(DataError) as error:
        tune.execute(Run.open(recipe))
    assert "stopped by tune.time_budget_s before its first epoch" in str(error.value)
    assert not Run.open(recipe).winner_file.exists()
    total, deadline = ray.cluster_resources()["CPU"], time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) < total and time.monotonic() < deadline:
        time.sleep(0.5)
    assert ray.available_resources().get("CPU", 0) == total
