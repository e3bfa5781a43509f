"""The jobs, submitted to a cluster of two nodes: token authentication, nothing left behind.

The cluster lives in a process of its own (`two_nodes.py`): its environment, token and folder are
then nobody else's. The head has no CPU to lend, so all that asks for one has to run on the second
node.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny import tiny_events, tiny_log, tiny_recipe_file

from recsys.artifacts.bundle import Bundle
from recsys.artifacts.registry import Registry

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class TwoNodes:
    """A running cluster: where jobs are submitted, and the environment that a client needs."""

    dashboard: str
    environment: dict[str, str]
    home: Path
    process: subprocess.Popen[str]

    def submit(self, *command: str) -> subprocess.CompletedProcess[str]:
        """`ray job submit`, awaited."""
        ray = str(Path(sys.executable).with_name("ray"))
        return subprocess.run(
            [ray, "job", "submit", "--address", self.dashboard, "--", *command],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def shut_down(self) -> None:
        """Ask the hosting process to take the nodes down, and wait for it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(timeout=60) == 0


def processes_of(home: Path) -> list[int]:
    """Processes with a file open in the cluster's folder, or whose environment names it.

    Both, because a process that renames itself, as Ray's do, overwrites its environment in /proc.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            traces = [os.readlink(number) for number in (process / "fd").iterdir()]
            traces += (process / "environ").read_text(errors="replace").split("\0")
        except OSError:
            continue  # it ended, or it is not ours to look at
        if any(trace.startswith((f"{home}/", f"RAY_TMPDIR={home}")) for trace in traces):
            found.append(int(process.name))
    return found


#: Where Ray's dashboard, its agents, metrics, client server and GCS listen unless told otherwise.
USUAL_PORTS = (8265, 52365, 44217, 44227, 10001, 6379)


@pytest.fixture
def _usual_ports_taken() -> Iterator[None]:
    """As if the product's own service, or any Ray, ran on this machine; or it does."""
    with contextlib.ExitStack() as held:
        for port in USUAL_PORTS:
            with contextlib.suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
        yield


@pytest.fixture
def two_nodes(_usual_ports_taken: None) -> Iterator[TwoNodes]:
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
    }
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("two_nodes.py"))],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the cluster did not start"
        yield TwoNodes(json.loads(line)["dashboard"], environment, home, process)
    finally:
        for pid in processes_of(home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes by /proc")
def test_the_whole_way_runs_as_a_job_on_two_nodes(two_nodes: TwoNodes, tmp_path: Path) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{two_nodes.dashboard}/api/jobs/", timeout=10)
    assert refused.value.code == 401, "a client without the token must be turned away"

    tiny_log(tmp_path / "log")
    recipe = tiny_recipe_file(
        tmp_path, train={"epochs": 1, "num_workers": 2}, tune={"num_trials": 1},
        ray={"address": "auto", "num_cpus": None},
    )  # fmt: skip
    look = "import ray; ray.init(); print('nodes:', sum(n['Alive'] for n in ray.nodes()))"
    pipeline = ["-m", "ray_jobs.pipeline", "--config", str(recipe)]
    lines = [shlex.join([sys.executable, *part]) for part in (["-c", look], pipeline)]
    job = two_nodes.submit("bash", "-c", " && ".join(lines))
    assert job.returncode == 0, job.stdout + job.stderr
    assert "nodes: 2" in job.stdout
    assert "[5/5] promote" in job.stdout
    assert "succeeded" in job.stdout

    run = tmp_path / "run"
    counts = json.loads((run / "prepared" / "prepare.json").read_text())["counts"]
    assert counts["rows"] == counts["events"] == tiny_events().height
    report = json.loads((run / "report.json").read_text())
    assert report["num_questions"] == counts["test_baskets"]
    assert Registry(tmp_path / "registry").champion() == Bundle.open(run / "bundle").version

    two_nodes.shut_down()
    deadline = time.monotonic() + 20
    while (left := processes_of(two_nodes.home)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
