"""A search's workers: kept from trial to trial, and replaced when they are lost."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from actors import actors
from tiny import tiny_log, tiny_recipe, trainable_here

from ray_jobs import tune
from ray_jobs.common.board import the_board
from ray_jobs.common.groups import groups_at_work
from ray_jobs.common.work import Training
from recsys.artifacts.run import Run

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.usefixtures("cluster")]
EPOCHS = 3


def test_one_worker_trains_all_trials_and_is_replaced_when_it_dies_or_hangs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed in the second trial, stopped in the third: they go on, no other is trained again."""
    tiny_log(tmp_path / "log")
    recipe = tiny_recipe(
        tmp_path,
        train={
            "epochs": EPOCHS,
            "patience": EPOCHS,
            "checkpoint_minutes": 0,
            "batch_size": 2,
            "hang_minutes": 0.5,
        },
        tune={"num_trials": 3, "max_concurrent": 1, "scheduler": "none"},
    )
    trainable_here(recipe)
    before = {actor.actor_id for actor in actors(class_name="RayTrainWorker")}
    ended: list[int] = []
    stop = threading.Event()

    def kill() -> None:
        for trial, how in (("00001", signal.SIGKILL), ("00002", signal.SIGSTOP)):
            at_work = f"*/train-{trial}-*/checkpoint_0001*"
            while not list(Run.open(recipe).trainings.glob(at_work)):
                if stop.wait(0.02):
                    return
            for actor in actors(class_name="RayTrainWorker", state="ALIVE"):
                if actor.actor_id not in before:
                    os.kill(actor.pid, how)
                    ended.append(actor.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        tune.execute(Run.open(recipe))
    finally:
        stop.set()
        killer.join()
        left = [pid for pid in ended if Path(f"/proc/{pid}").exists()]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert len(ended) == 2, "the search was over before the worker could be ended"
    assert not left
    started = {actor.actor_id for actor in actors(class_name="RayTrainWorker")} - before
    assert len(started) == 3, "one for all trials, and one in its place each time"
    lines = [line for line in capsys.readouterr().out.splitlines() if "start again" in line]
    assert len(lines) == 2
    assert "_00001: worker 0 was lost; all start again from the last checkpoint" in lines[0]
    assert "_00002: worker 0 hangs: it does not answer (train.hang_minutes); all" in lines[1]
    trials = json.loads(Run.open(recipe).winner_file.read_text())["trials"]
    assert [(trial["status"], trial["epochs"]) for trial in trials] == 3 * [("finished", EPOCHS)]


def test_a_group_that_is_cut_off_while_it_starts_gives_its_room_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Ray Train's cleaner does not know its placement group yet, and the job goes on.

    The controller of another training is not waited for.
    """
    import ray

    # Pickled by value: workers do not find this module.
    other = ray.remote(type("TrainController", (), {})).options(num_cpus=0).remote()
    ray.get(other.__ray_ready__.remote())
    tiny_log(tmp_path / "log")
    recipe = tiny_recipe(tmp_path)
    trainable_here(recipe)
    before, total = _placement_groups(), ray.cluster_resources()["CPU"]
    cut = pytest.raises(RuntimeError, match="cut off")
    with cut, groups_at_work(Run.open(recipe), tmp_path / "search"):
        ray.get(the_board().put_up.remote(Training({}, str(tmp_path / "train-a"))))
        deadline = time.monotonic() + 60
        while not (new := _placement_groups() - before) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(new) == 1
        raise RuntimeError("cut off")
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU", 0) < total and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ray.available_resources().get("CPU", 0) == total
    assert _placement_groups() <= before
    assert "have not ended" not in caplog.text


def _placement_groups() -> set[str]:
    """Those that are not removed."""
    from ray.util import placement_group_table

    return {name for name, each in placement_group_table().items() if each["state"] != "REMOVED"}
