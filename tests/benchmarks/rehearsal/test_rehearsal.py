"""A small rehearsal, where namespaces are to be had; and what is left of one that is ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.rehearsal.command import INTERRUPTED, why_not
from benchmarks.rehearsal.steps import SMALL

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    if why := why_not():
        pytest.skip(f"a rehearsal {why}")


@contextmanager
def started(logs: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A small rehearsal, ended with the block."""
    rehearsal = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.rehearsal", "--small", "--logs", str(logs), *options],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield rehearsal
    finally:
        rehearsal.kill()
        rehearsal.wait()


def left_of(logs: Path) -> list[int]:
    """Processes that have a file open where the hosts print to."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            opened = [os.readlink(number) for number in (process / "fd").iterdir()]
        except OSError:
            continue  # it ended
        if any(path.startswith(f"{logs}/") for path in opened):
            found.append(int(process.name))
    return found


@pytest.mark.ray
@pytest.mark.chaos
def test_a_small_rehearsal(tmp_path: Path) -> None:
    logs, report = tmp_path / "logs", tmp_path / "report.json"
    with started(logs, "--json", str(report)) as rehearsal:
        out, _ = rehearsal.communicate(timeout=400)
    assert rehearsal.returncode == 0, out
    steps = json.loads(report.read_text())["steps"]
    assert [step["step"] for step in steps] == [step.__name__ for step in SMALL]
    assert all(step["well"] for step in steps)
    assert left_of(logs) == []


@pytest.mark.chaos
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_it_nothing_is_left(tmp_path: Path, how: signal.Signals) -> None:
    logs, deadline = tmp_path / "logs", time.monotonic() + 120
    with started(logs) as rehearsal:
        while len(left_of(logs)) < 2:  # the servers of the hosts' store
            assert rehearsal.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        rehearsal.send_signal(how)
        out, _ = rehearsal.communicate(timeout=60)
    assert rehearsal.returncode == (-how if how is signal.SIGKILL else INTERRUPTED), out
    while left := left_of(logs):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    assert "rehearsal" not in links
