"""A Ray cluster on hosts of the rehearsal: a head, workers, and jobs that are submitted to it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rehearsal.network import Host

GCS_PORT, DASHBOARD_PORT = 6379, 8265
#: A host that says nothing is asked so often, so far apart, and each time waited for, milliseconds.
#: Ray's own settings take it for dead after a minute or more.
HEALTH = {
    "RAY_health_check_failure_threshold": "4",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "3000",
}
#: Bytes of each host's object store.
_STORE = 200_000_000
_RAY = str(Path(sys.executable).with_name("ray"))


class Cluster:
    """A running cluster.

    Args:
        head: its first host, where jobs' drivers run.
        workers: the others; none: the head works too.
        token: of its clients.
        cpus: of each host that works.
    """

    def __init__(self, head: Host, workers: Sequence[Host], *, token: str, cpus: int) -> None:
        self.head, self.workers, self._token, self._cpus = head, workers, token, cpus
        head.run(
            "ray", _RAY, "start", "--head", f"--node-ip-address={head.address}",
            f"--port={GCS_PORT}", f"--dashboard-host={head.address}",
            f"--dashboard-port={DASHBOARD_PORT}", f"--num-cpus={0 if workers else cpus}",
            f"--object-store-memory={_STORE}", "--disable-usage-stats",
        )  # fmt: skip
        for worker in workers:
            self.join(worker)
        until(lambda: len(self.alive()) == 1 + len(workers), 60, "not all hosts have joined")

    @property
    def dashboard(self) -> str:
        """Its URL."""
        return f"http://{self.head.address}:{DASHBOARD_PORT}"

    def join(self, worker: Host) -> None:
        """Start Ray on a worker."""
        worker.run(
            "ray", _RAY, "start", f"--address={self.head.address}:{GCS_PORT}",
            f"--node-ip-address={worker.address}", f"--num-cpus={self._cpus}",
            f"--object-store-memory={_STORE}", "--disable-usage-stats",
        )  # fmt: skip

    def alive(self) -> set[str]:
        """Addresses of the nodes that the head takes for alive."""
        told = self.ask("/api/v0/nodes?limit=1000")["data"]["result"]["result"]
        return {str(node["node_ip"]) for node in told if node["state"] == "ALIVE"}

    def ask(self, path: str, *, token: str | None = None) -> Any:
        """What the dashboard answers, as plain data.

        Raises:
            urllib.error.HTTPError: it refuses.
        """
        headers = {"Authorization": f"Bearer {token or self._token}"}
        request = urllib.request.Request(f"{self.dashboard}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def submit(self, name: str, *command: str) -> Job:
        """`ray job submit` on the head."""
        return Job(name, self, command)


class Job:
    """A submitted job, whose output comes back to a file as it runs."""

    def __init__(self, name: str, cluster: Cluster, command: Sequence[str]) -> None:
        self._name, self._log = name, cluster.head.log(name)
        self._process = cluster.head.start(
            name, _RAY, "job", "submit", "--address", cluster.dashboard, "--",
            sys.executable, *command,
        )  # fmt: skip

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    def until_it_says(self, text: str, timeout_s: float) -> None:
        """Wait for a text in its output.

        Raises:
            RuntimeError: it ended without, or the time is up.
        """
        until(lambda: text in self.output or self._process.poll() is not None, timeout_s,
              f"{self._name} did not say {text!r}")  # fmt: skip
        if text not in self.output:
            raise RuntimeError(f"{self._name} ended before it said {text!r}: {self._last()}")

    def wait(self, timeout_s: float) -> None:
        """Wait for its end.

        Raises:
            RuntimeError: it failed, or the time is up.
        """
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise RuntimeError(
                f"{self._name} was not done after {timeout_s:.0f} s: {self._last()}"
            ) from None
        if status:
            raise RuntimeError(f"{self._name} ended with {status}: {self._last()}")

    def _last(self) -> str:
        """Its last line, or two; those of the command that submitted it begin with the time."""
        ours = [each for each in self.output.splitlines() if each.strip() and each[:2] != "20"]
        return " | ".join(ours[-2:])


def until(is_so: Callable[[], bool], timeout_s: float, otherwise: str) -> float:
    """Wait for something; returns the seconds.

    Raises:
        RuntimeError: the time is up.
    """
    began = time.monotonic()
    while not is_so():
        if time.monotonic() - began > timeout_s:
            raise RuntimeError(f"{otherwise} within {timeout_s:.0f} s")
        time.sleep(0.2)
    return time.monotonic() - began
