"""Asking a service from outside, while one of its hosts is cut off."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
import urllib.request
from dataclasses import dataclass
from typing import Any

from benchmarks.rehearsal.network import Host
from benchmarks.serving.clients import Answer, Clients

PORT, STATS_PORT = 8000, 8404
#: Clients, the seconds between two requests of each, and how long one waits for its answer.
CLIENTS, PAUSE_S, PATIENCE_S = 10, 0.5, 5.0


def post(host: Host, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """What the service answers at a host.

    Raises:
        urllib.error.HTTPError: it refuses.
    """
    request = urllib.request.Request(
        f"http://{host.address}:{PORT}{path}", json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(json.load(answer))


def up_servers(host: Host) -> int:
    """How many replicas the host's HAProxy sends requests to, as its health checks say."""
    url = f"http://{host.address}:{STATS_PORT}/stats;csv"
    with urllib.request.urlopen(url, timeout=5) as answer:
        table = csv.DictReader(io.StringIO(answer.read().decode().lstrip("# ")))
    return sum(
        row["status"].startswith("UP") and row["bck"] == "0" and row["svname"] != "BACKEND"
        for row in table
        if row["pxname"].startswith("http-")
    )


@dataclass(frozen=True)
class Asked:
    """What became of requests to one host while another was cut off.

    Attributes:
        answers: in the order they came.
        cut: when the host was cut off, `time.monotonic`.
        taken_out: when the proxy had taken its replica for dead.
    """

    answers: list[Answer]
    cut: float
    taken_out: float

    def _of(self, low: float, high: float) -> list[Answer]:
        """The answers to requests that were sent in a time."""
        return [each for each in self.answers if low <= each.at - each.seconds < high]

    @property
    def failed_after(self) -> int:
        """Requests sent after the replica was taken out, and not answered well."""
        return _failed(self._of(self.taken_out, float("inf")))

    def __str__(self) -> str:
        before = self._of(0, self.cut)
        between = self._of(self.cut, self.taken_out)
        after = self._of(self.taken_out, float("inf"))
        slowest = max((each.seconds for each in between if each.status == 200), default=0.0)
        return (
            f"before the cut {_failed(before)} of {len(before)} failed; in the "
            f"{self.taken_out - self.cut:.1f} s until the health check {_failed(between)} of "
            f"{len(between)} (slowest answer {slowest:.1f} s); after it {_failed(after)} of "
            f"{len(after)}"
        )


def _failed(answers: list[Answer]) -> int:
    return sum(each.status != 200 for each in answers)


async def asked_while_cut_off(asked: Host, lost: Host, seconds: float) -> Asked:
    """Ask one host, cut the other off, and go on asking.

    Args:
        asked: whose proxy is asked.
        lost: whose link goes down, and stays down.
        seconds: before the cut, and after the proxy has noticed it.

    Raises:
        RuntimeError: the proxy does not notice it.
    """
    bodies = [json.dumps({"user_id": f"user-{number}", "k": 10}) for number in range(100)]
    clients = Clients(
        f"http://{asked.address}:{PORT}/recommend", bodies, PAUSE_S, CLIENTS, patience_s=PATIENCE_S
    )
    done = asyncio.Event()
    asking = asyncio.create_task(clients.run_until(done))
    try:
        await asyncio.sleep(seconds)
        lost.cut_off()
        cut = time.monotonic()
        while await asyncio.to_thread(up_servers, asked) > 1:
            if time.monotonic() - cut > 120:
                raise RuntimeError("the proxy does not notice that a host is gone")
            await asyncio.sleep(0.1)
        taken_out = time.monotonic()
        await asyncio.sleep(seconds)
    finally:
        done.set()
        await asking
    return Asked(clients.answers, cut, taken_out)
