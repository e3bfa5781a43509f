"""Folders and processes that a killed owner leaves, and those of others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys.storage import scratch
from recsys.storage.scratch import KEPT_S, KILLED_LOGS, MARK, Scratch, marked, sweep

SLEEP = "import time; time.sleep(60)"
OWNER = (
    "import subprocess, sys; from pathlib import Path; from recsys.storage.scratch import Scratch\n"
    "kind, run, child = sys.argv[1:]\n"
    "made = Scratch.make(kind, Path(run))\n"
    "(made.folder / 'ray/session_2026/logs').mkdir(parents=True)\n"
    "(made.folder / 'ray/session_2026/logs/raylet.out').write_text('last words')\n"
    "idle = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
    "if child: subprocess.Popen(idle, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)\n"
    "print(made.folder, flush=True); sys.stdin.read()\n"
)


@pytest.fixture(autouse=True)
def _own_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Folders of a test lie in its own: what runs on the machine is not its business."""
    parent = tmp_path / "scratch"
    parent.mkdir()
    monkeypatch.setattr(scratch, "PARENT", parent)
    monkeypatch.delenv(MARK, raising=False)
    yield
    for folder in parent.iterdir():
        for pid, _ in marked(folder.name):
            os.kill(pid, signal.SIGKILL)


def killed(kind: str, run: Path, tmp_path: Path, child: str = "") -> Path:
    """The folder of an owner that was killed."""
    code = OWNER.replace(
        "made =",
        "from recsys.storage import scratch\n"
        f"scratch.PARENT = Path({str(tmp_path / 'scratch')!r})\nmade =",
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, kind, str(run), child],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().strip())
    assert sweep("job") == [], "its owner lives"
    owner.kill()
    owner.communicate()
    assert folder.is_dir()
    return folder


def test_what_is_left_is_ended_and_nothing_else() -> None:
    stranger = subprocess.Popen([sys.executable, "-c", SLEEP])
    mine = Scratch.make("job")
    left = subprocess.Popen([sys.executable, "-c", SLEEP])
    try:
        assert {pid for pid, _ in mine.processes()} == {left.pid}
        mine.clear(patience_s=0.2)
        assert left.wait(5) == -9
        assert stranger.poll() is None
        assert not mine.folder.exists() and MARK not in os.environ
    finally:
        for process in (stranger, left):
            process.kill()
            process.wait()


def test_a_child_that_wrote_over_its_environment_is_found_by_its_parent() -> None:
    mine = Scratch.make("job")
    parent = subprocess.Popen(["sh", "-c", "env -i sleep 60 & wait"])
    try:
        deadline = time.monotonic() + 10
        while len(found := mine.processes()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        mine.clear(patience_s=0.2)
        parent.wait(5)  # killed, or done since the child was killed first
        (child,) = {pid for pid, _ in found} - {parent.pid}
        while Path(f"/proc/{child}").exists():  # until init has taken note of its end
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()


def test_one_whose_parent_is_gone_is_found_by_what_it_holds_open() -> None:
    mine = Scratch.make("job")
    orphan = subprocess.Popen(["sh", "-c", f"exec env -i sleep 60 3>{mine.folder}/log"])
    stranger = subprocess.Popen(["env", "-i", "sleep", "60"])
    try:
        deadline = time.monotonic() + 10
        while {pid for pid, _ in mine.processes()} != {orphan.pid} or stranger.poll():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        mine.clear(patience_s=0.2)
        assert orphan.wait(5) == -9
        assert stranger.poll() is None
    finally:
        for process in (orphan, stranger):
            process.kill()
            process.wait()


def test_what_a_killed_job_left_goes_with_its_processes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    folder = killed("job", run, tmp_path, "child")
    (left,) = sweep("job", run)
    assert (left.folder, left.kind, left.num_processes) == (folder, "job", 1)
    assert not folder.exists() and not marked(folder.name)
    assert sweep("job", run) == []


def test_a_service_that_outlives_its_owner_is_ended_by_the_one_that_takes_its_place(
    tmp_path: Path,
) -> None:
    """Its replicas may still answer: a job, or another shop's service, lets them."""
    run = tmp_path / "run"
    run.mkdir()
    folder = killed("service", run, tmp_path, "child")
    assert sweep("job", run) == []
    assert sweep("service", tmp_path / "other") == []
    assert marked(folder.name)
    (left,) = sweep("service", run)
    assert (left.folder, left.num_processes) == (folder, 1)
    assert not folder.exists() and not marked(folder.name)
    assert (run / KILLED_LOGS / "raylet.out").read_text() == "last words"


def test_a_dead_service_goes_whoever_comes_next(tmp_path: Path) -> None:
    folder = killed("service", tmp_path / "gone", tmp_path)
    assert [left.folder for left in sweep("job")] == [folder]
    assert not folder.exists()


def test_what_was_kept_for_its_logs_stays_a_day(tmp_path: Path) -> None:
    mine = Scratch.make("job")
    mine.clear(keep=True)
    assert sweep("job") == [] and mine.folder.is_dir()
    kept = mine.folder / ".kept"
    os.utime(kept, (time.time() - KEPT_S - 1,) * 2)
    assert [left.folder for left in sweep("job")] == [mine.folder]


@pytest.mark.parametrize("owner", [None, "", "[]", "{}", json.dumps({"kind": "job"})])
def test_what_is_not_ours_stays(tmp_path: Path, owner: str | None) -> None:
    folder = tmp_path / "scratch" / "rc-strange"
    folder.mkdir()
    if owner is not None:
        (folder / ".owner").write_text(owner)
    assert sweep("job") == []
    assert folder.is_dir()
