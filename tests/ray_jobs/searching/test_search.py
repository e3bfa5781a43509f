"""What a search would do, one that runs out of time, and one that is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_log, tiny_recipe, tiny_recipe_file, trainable_here

from ray_jobs import tune
from ray_jobs.searching.drawing import algorithm, param_space
from recsys.artifacts.run import Run
from recsys.artifacts.trials import read_trials
from recsys.config import load_recipe
from recsys.errors import DataError, RecipeError
from recsys.evaluation.report import METRIC

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
    recipe = tiny_recipe(tmp_path, tune={"time_budget_s": 0.5, "max_concurrent": 1})
    trainable_here(recipe)
    with pytest.raises(DataError) as error:
        tune.execute(Run.open(recipe))
    assert "stopped by tune.time_budget_s before its first epoch" in str(error.value)
    assert not Run.open(recipe).winner_file.exists()
    total, deadline = ray.cluster_resources()["CPU"], time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) < total and time.monotonic() < deadline:
        time.sleep(0.5)
    assert ray.available_resources().get("CPU", 0) == total


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
@pytest.mark.chaos
def test_a_killed_tpe_search_goes_on_as_if_nothing_had_been(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It knows the trials of before, and draws what a search that nobody killed would draw."""
    tiny_log(tmp_path / "log")
    config = tiny_recipe_file(
        tmp_path, train={"epochs": 2, "patience": 2},
        tune={"search": "tpe", "scheduler": "none", "num_trials": 3, "max_concurrent": 1},
    )  # fmt: skip
    recipe = load_recipe(config)
    trainable_here(recipe)
    printed = _killed_in_the_second_trial(config)
    (done,) = re.findall(r"(trial-\w+): epoch 2/2", printed)

    tune.execute(Run.open(recipe))
    second = capsys.readouterr().out
    assert f"{done} (" not in second, f"{done} was run again"
    # A trial that goes on is told of again, with its place among those that are left.
    begun = [*dict.fromkeys(re.findall(r"(trial-\w+) \(\d of", printed + second))]
    trials: list[dict[str, Any]] = json.loads(Run.open(recipe).winner_file.read_text())["trials"]
    trials.sort(key=lambda trial: begun.index(trial["trial"]))
    assert [trial["status"] for trial in trials] == 3 * ["finished"]
    assert trials[0]["trial"] == done

    drawing = algorithm(recipe, 1)
    drawing.set_search_properties(METRIC, "max", param_space(recipe))
    epochs = read_trials(Run.open(recipe).trials_file)
    for trial in trials:
        assert drawing.suggest(trial["trial"]) == trial["settings"]
        last = epochs.filter(trial=trial["trial"])[METRIC][-1]
        drawing.on_trial_complete(trial["trial"], {METRIC: last, "training_iteration": 2})


def _killed_in_the_second_trial(config: Path) -> str:
    """Search, and SIGKILL it once Tune has saved that the second trial was drawn; what it said."""
    search = subprocess.Popen(
        [sys.executable, "-m", "ray_jobs.tune", "--config", str(config)], cwd=ROOT,
        env=os.environ | {"TUNE_GLOBAL_CHECKPOINT_S": "2"}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert search.stdout is not None
    seen = []
    for line in search.stdout:
        seen.append(line)
        if "(2 of 3)" in line:
            break
    drawn, folder = time.time(), Run.open(load_recipe(config)).trainings
    kinds = ("experiment_state-*", "search_gen_state-*", "searcher-state-*")
    while not all(
        any(path.stat().st_mtime > drawn for path in folder.glob(f"*/{kind}")) for kind in kinds
    ):
        assert search.poll() is None and time.time() < drawn + 30, "".join(seen)
        time.sleep(0.05)
    time.sleep(0.5)  # to the end of that save
    os.killpg(search.pid, signal.SIGKILL)
    search.wait(60)
    return "".join(seen)
