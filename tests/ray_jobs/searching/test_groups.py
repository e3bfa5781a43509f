"""A search's workers: kept from trial to trial, and replaced when they are lost."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from actors import actors
from tiny import prepare_here, tiny_log, tiny_recipe

from ray_jobs import tune
from recsys.artifacts.run import Run

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.usefixtures("cluster")]
EPOCHS = 3


def test_one_worker_trains_all_trials_and_one_that_is_killed_is_replaced(tmp_path: Path) -> None:
    """It is killed in the second trial, which goes on; the first is not trained again."""
    tiny_log(tmp_path / "log")
    recipe = tiny_recipe(
        tmp_path,
        train={"epochs": EPOCHS, "patience": EPOCHS, "checkpoint_minutes": 0, "batch_size": 2},
        tune={"num_trials": 3, "max_concurrent": 1, "scheduler": "none"},
    )
    prepare_here(recipe)
    before = {actor.actor_id for actor in actors(class_name="RayTrainWorker")}
    killed, stop = threading.Event(), threading.Event()

    def kill() -> None:
        while not stop.wait(0.02):
            if not list(Run.open(recipe).trainings.glob("*/train-00001-*/checkpoint_0001*")):
                continue
            for actor in actors(class_name="RayTrainWorker", state="ALIVE"):
                if actor.actor_id not in before:
                    os.kill(actor.pid, signal.SIGKILL)
                    killed.set()
                    return

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        tune.execute(Run.open(recipe))
    finally:
        stop.set()
        killer.join()
    assert killed.is_set(), "the search was over before the worker could be killed"
    started = {actor.actor_id for actor in actors(class_name="RayTrainWorker")} - before
    assert len(started) == 2, "one for all trials, and one in its place"
    trials = json.loads(Run.open(recipe).winner_file.read_text())["trials"]
    assert [(trial["status"], trial["epochs"]) for trial in trials] == 3 * [("finished", EPOCHS)]
