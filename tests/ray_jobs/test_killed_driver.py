"""The process that waits for a training is killed; the same command goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import tiny_log, tiny_recipe_file, trainable_here

from ray_jobs import train
from recsys.artifacts.checkpoint import MODEL
from recsys.artifacts.progress import whole_ones
from recsys.artifacts.run import Run
from recsys.config import load_recipe

ROOT = Path(__file__).parents[2]
EPOCHS = 3


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
@pytest.mark.chaos
def test_the_same_command_goes_on_from_the_last_whole_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last one is damaged as well: that is said, and the one before it taken."""
    tiny_log(tmp_path / "log")
    config = tiny_recipe_file(
        tmp_path, train={"epochs": EPOCHS, "patience": EPOCHS, "checkpoint_minutes": 0}
    )
    recipe = load_recipe(config)
    trainable_here(recipe)
    trainings = Run.open(recipe).trainings
    command = [sys.executable, "-m", "ray_jobs.train", "--config", str(config)]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 300
        while len(list(trainings.glob("*/checkpoint_0001*"))) < 2:
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        first.kill()
        first.wait()
    (training,) = {path.parent for path in trainings.glob("*/checkpoint_*")}
    _until_nobody_writes(training)
    *_, (before, _), (last, _) = whole_ones(training)
    (last / MODEL).write_bytes(b"torn")
    train.execute(Run.open(recipe))
    second = capsys.readouterr().out
    assert f"{last} is damaged: the training goes on from {before.name}" in second
    assert "epoch 1/3" not in second, "it is trained"
    curve = whole_ones(training)[-1][1].curve
    assert [point["epoch"] for point in curve] == list(range(1, EPOCHS + 1))


def _until_nobody_writes(folder: Path) -> None:
    """Wait until the killed process's workers have ended too."""
    seen: list[str] = []
    while seen != (now := sorted(path.name for path in folder.iterdir())):
        seen = now
        time.sleep(3)
