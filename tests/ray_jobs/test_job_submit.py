"""`prepare` as a submitted job: a cluster of two nodes, token authentication, nothing left behind.

The cluster lives in a process of its own (this file, run as a script): its environment, token and
folder are then nobody else's. The head has no CPU to lend, so each of the job's tasks has to run on
the second node.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).parents[2]
NUM_USERS, NUM_ITEMS, NUM_DAYS = 12, 6, 60
FIRST_DAY = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def host() -> None:
    """Run two nodes until standard input ends; print their addresses as one line of JSON."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": True, "dashboard_host": "127.0.0.1"},
    )
    try:
        cluster.add_node(num_cpus=2)
        cluster.wait_for_nodes()
        print(json.dumps({"dashboard": f"http://{cluster.webui_url}"}), flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


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
            timeout=150,
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


@pytest.fixture
def two_nodes() -> Iterator[TwoNodes]:
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
        [sys.executable, __file__],
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


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe over a log in which each user buys one item on each day."""
    days = [FIRST_DAY + dt.timedelta(days=day) for day in range(NUM_DAYS)]
    rows = [
        (f"u{user}", f"i{(user + day) % NUM_ITEMS}", days[day] + dt.timedelta(minutes=user))
        for user in range(NUM_USERS)
        for day in range(NUM_DAYS)
    ]
    users, items, times = zip(*rows, strict=True)
    for part, name in ((slice(0, None, 2), "even"), (slice(1, None, 2), "odd")):
        events = {
            "user_id": users[part],
            "item_id": items[part],
            "event_type": ["purchase"] * len(users[part]),
            "timestamp": pa.array(times[part], pa.timestamp("us", tz="UTC")),
        }
        (tmp_path / "log" / "events").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(events), tmp_path / "log" / "events" / f"{name}.parquet")
    numbers = range(NUM_ITEMS)
    catalogue = {
        "item_id": [f"i{number}" for number in numbers],
        "title": [f"soup number {number}" for number in numbers],
    }
    pq.write_table(pa.table(catalogue), tmp_path / "log" / "items.parquet")
    path = tmp_path / "tiny.yaml"
    cuts = {"head": days[20], "valid": days[35], "test": days[50]}
    content = {
        "name": "tiny",
        "run_dir": str(tmp_path / "run"),
        "data": {"source": str(tmp_path / "log"), "cuts": cuts, "num_buckets": 2},
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes by /proc")
def test_prepare_runs_as_a_job_on_two_nodes(
    two_nodes: TwoNodes, recipe: Path, tmp_path: Path
) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{two_nodes.dashboard}/api/jobs/", timeout=10)
    assert refused.value.code == 401, "a client without the token must be turned away"

    look = "import ray; ray.init(); print('nodes:', sum(n['Alive'] for n in ray.nodes()))"
    prepare = ["-m", "ray_jobs.prepare", "--config", str(recipe), "--set", "ray.address=auto"]
    lines = [shlex.join([sys.executable, *part]) for part in (["-c", look], prepare)]
    job = two_nodes.submit("bash", "-c", " && ".join(lines))
    assert job.returncode == 0, job.stdout + job.stderr
    assert "nodes: 2" in job.stdout
    assert "succeeded" in job.stdout

    prepared = tmp_path / "run" / "prepared"
    counts = json.loads((prepared / "prepare.json").read_text())["counts"]
    assert counts["rows"] == counts["events"] == NUM_USERS * NUM_DAYS
    assert (counts["users"], counts["items"]) == (NUM_USERS, NUM_ITEMS)
    histories = [pq.read_table(path) for path in sorted((prepared / "histories").glob("*.parquet"))]
    assert sum(table.num_rows for table in histories) == NUM_USERS

    two_nodes.shut_down()
    deadline = time.monotonic() + 20
    while (left := processes_of(two_nodes.home)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


if __name__ == "__main__":
    host()
