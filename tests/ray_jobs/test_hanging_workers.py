"""A training worker that is alone, and stands still; of several see `test_train`."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from pathlib import Path

import pytest
from actors import actors
from tiny import prepare_here, tiny_log, tiny_recipe

from ray_jobs import train
from ray_jobs.common.kept import Checkpoints
from recsys.artifacts.run import Run
from recsys.config import Recipe

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.usefixtures("cluster")]


def test_a_lone_worker_that_stands_still_is_found_and_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its process answers, and a read does not return: a shard is a pipe without a writer."""
    tiny_log(tmp_path / "log")
    settings = {"epochs": 3, "patience": 3, "checkpoint_minutes": None, "hang_minutes": 0.4}
    recipe = tiny_recipe(tmp_path, train=settings)
    prepared = prepare_here(recipe)
    shard = prepared.shards[0].resolve()
    aside, pipe = shard.with_suffix(".aside"), shard.with_suffix(".pipe")
    os.link(shard, aside)
    os.mkfifo(pipe)
    os.link(pipe, instead := shard.with_suffix(".instead"))
    end = threading.Event()

    def block() -> None:
        first = "*/checkpoint_0001/progress.json"
        while not list(Run.open(recipe).trainings.glob(first)) and not end.wait(0.01):
            pass
        instead.replace(shard)
        while len(actors(class_name="RayTrainWorker")) < before + 2 and not end.wait(0.2):
            pass
        aside.replace(shard)
        with contextlib.suppress(OSError):  # whoever still waits for it reads its end
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))

    before = len(actors(class_name="RayTrainWorker"))
    blocker = threading.Thread(target=block)
    blocker.start()
    try:
        train.execute(Run.open(recipe))
    finally:
        end.set()
        blocker.join()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "hangs" in line]
    told = r"worker 0 hangs: its loop has stood still for \d+ s \(train.hang_minutes\); all start"
    assert re.search(told, line)
    assert _epochs(recipe) == [1, 2, 3]


def _epochs(recipe: Recipe) -> list[int]:
    """Those that are finished."""
    run = Run.open(recipe).trained
    kept = Checkpoints(run.trainings / run.training_name("train"), recipe.shared)
    return [point["epoch"] for point in kept.curve()]
