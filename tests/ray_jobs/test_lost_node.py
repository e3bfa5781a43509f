"""A node is lost while it trains, and another comes: training goes on smaller, and grows back."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_log, tiny_recipe_file, trainable_here

from recsys.artifacts.progress import whole_ones
from recsys.artifacts.run import Run
from recsys.config import load_recipe

ROOT = Path(__file__).parents[2]
EPOCHS = 5
SOON_S = 300


@dataclass(frozen=True)
class Nodes:
    """A cluster whose nodes come and go, see `coming_and_going.py`."""

    process: subprocess.Popen[str]
    environment: dict[str, str]

    def tell(self, command: str) -> list[int]:
        """Have it done; returns the training workers that are alive, by their processes."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return list(json.loads(self.process.stdout.readline()))

    def train(self, config: Path, log: Path) -> subprocess.Popen[str]:
        """`recsys train`, begun."""
        command = [sys.executable, "-m", "ray_jobs.train", "--config", str(config)]
        with log.open("w") as out:
            return subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=out, stderr=out, text=True
            )


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    # Short, unlike tmp_path: Ray's sockets lie inside, and a socket's path has at most 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="rc-"))
    token = home / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    environment = {name: value for name, value in os.environ.items() if name[:4] != "RAY_"}
    environment |= {
        "RAY_TMPDIR": str(home),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Sooner than on a cluster of machines.
        "RAY_health_check_period_ms": "500",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5",
    }
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("coming_and_going.py"))],
        cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdin is not None and process.stdout is not None
        line = process.stdout.readline()
        assert line, "the cluster did not start"
        yield Nodes(process, environment | {"RAY_ADDRESS": json.loads(line)})
        process.stdin.close()
        assert process.wait(timeout=60) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        shutil.rmtree(home, ignore_errors=True)


def wait_for(condition: Callable[[], bool], job: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert job.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_training_goes_on_with_one_worker_and_grows_back(nodes: Nodes, tmp_path: Path) -> None:
    """It ends as one of which nothing was lost, but for the order of sums."""
    tiny_log(tmp_path / "log")
    settings = {
        "epochs": EPOCHS, "patience": EPOCHS, "batch_size": 2, "checkpoint_minutes": 0,
        "optimizer": "sgd",
    }  # fmt: skip
    ends = {}
    for name, fewest in (("disturbed", 1), ("undisturbed", 2)):
        folder = tmp_path / name
        folder.mkdir()
        config = tiny_recipe_file(
            folder, train={**settings, "num_workers": {"min": fewest, "max": 2}},
            data={**_data(folder), "source": str(tmp_path / "log")}, ray={"address": None},
        )  # fmt: skip
        recipe, log = load_recipe(config), folder / "log.txt"
        trainable_here(recipe)
        run = Run.open(recipe)
        job = nodes.train(config, log)
        try:
            if name == "disturbed":
                _lose_and_add(nodes, run, job, log)
            assert job.wait(timeout=SOON_S) == 0, log.read_text()
        finally:
            job.kill()
            job.wait()
        told = log.read_text()
        lost = [line for line in told.splitlines() if "start again" in line]
        assert len(lost) == (name == "disturbed"), told
        (training,) = {path.parent for path in run.trainings.glob("*/checkpoint_*")}
        path, progress = whole_ones(training)[-1]
        assert [point["epoch"] for point in progress.curve] == list(range(1, EPOCHS + 1))
        ends[name] = (load_file(path / "model.safetensors"), progress.curve)
    (disturbed, curve), (undisturbed, expected) = ends["disturbed"], ends["undisturbed"]
    assert [point["step"] for point in curve] == [point["step"] for point in expected]
    for key, value in undisturbed.items():
        torch.testing.assert_close(disturbed[key], value, rtol=0, atol=1e-6, msg=key)


def _data(folder: Path) -> dict[str, object]:
    from tiny import tiny_settings

    return dict(tiny_settings(folder)["data"])


def _lose_and_add(nodes: Nodes, run: Run, job: subprocess.Popen[str], log: Path) -> None:
    """A node is lost after the first epoch; one comes before the last, while one worker trains."""

    def is_at(epoch: int) -> bool:
        return bool(list(run.trainings.glob(f"*/checkpoint_{epoch:04d}*")))

    wait_for(lambda: is_at(1), job, log)
    assert len(nodes.tell("workers")) == 2
    nodes.tell("lose")
    wait_for(lambda: len(nodes.tell("workers")) == 1, job, log)
    reached = max(int(path.name[11:15]) for path in run.trainings.glob("*/checkpoint_*"))
    wait_for(lambda: is_at(reached + 1), job, log)
    # However fast the machine is, the training is not over before the other node is there.
    (alone,) = nodes.tell("workers")
    os.kill(alone, signal.SIGSTOP)
    nodes.tell("add")
    wait_for(lambda: len({*nodes.tell("workers")} - {alone}) == 2, job, log)
