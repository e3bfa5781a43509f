"""A signal ends the service, running or starting, without a trace."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from running_service import ROOT, Running

from recsys.data.feedback import Feedback, finished
from recsys.schema import Col

pytestmark = [pytest.mark.serve, pytest.mark.ray]


def test_a_signal_ends_it_without_a_trace(running: Running) -> None:
    last = running.post("/recommend", {"user_id": "u", "k": 3})
    children = running.marked()
    assert any("haproxy" in name for name in children.values())
    assert any("raylet" in name for name in children.values())
    texts = [{"title": f"a cup of colour {n}"} for n in range(256)]  # some seconds of work
    ready = f"{running.url}/readyz"
    with ThreadPoolExecutor(40) as askers:
        asked = [
            askers.submit(running.post, "/rank", {"user_id": f"u{n}", "candidates": texts})
            for n in range(12)
        ]
        time.sleep(0.1)
        before = [each for each in asked if not each.done()]
        os.killpg(running.process.pid, signal.SIGINT)  # as Ctrl-C does, to the whole group
        while httpx.get(ready).status_code == 200:
            time.sleep(0.02)
        assert httpx.get(ready).json()["detail"][0]["msg"] == "the service is stopping"
        assert all(len(each.result()["items"]) == len(texts) for each in asked)
    assert before, "some were in work"
    while True:
        try:
            assert httpx.get(ready).status_code == 503, "for as long as the port is open"
        except httpx.TransportError:
            break
        time.sleep(0.05)
    assert running.process.wait(60) == 0, running.log.read_text()
    assert running.log.read_text().rstrip().endswith("stopped")
    shown = [pq.read_table(path) for path in finished(Feedback.of(running.root).impressions)]
    logged = pa.concat_tables(shown).select([Col.request, Col.item]).to_pylist()
    mine = [row[Col.item] for row in logged if row[Col.request] == last["request_id"]]
    assert mine == [item["item_id"] for item in last["items"]], "written before it ended"
    assert running.marked() == {}
    deadline = time.monotonic() + 10  # an orphan that has ended waits for init to take note of it
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for port in running.ports:
        socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize(
    ("number", "at"),
    [
        (signal.SIGINT, "raylet"), (signal.SIGTERM, "raylet"), (signal.SIGTERM, "ServeController"),
    ],
)  # fmt: skip
def test_a_signal_while_it_starts_ends_it_without_a_trace(
    running: Running, number: int, at: str
) -> None:
    """A shell's background job is started with SIGINT ignored, and heeds it all the same."""
    assert running.process.poll() is not None, "the test before has ended it"
    with running.log.open("wb") as out:
        process = subprocess.Popen(
            ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *running.command],
            stdout=out, stderr=out, env=running.environment, cwd=ROOT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not any(at in name for name in running.marked().values()):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) != 0, "it was not up yet"
        assert running.marked() == {}, running.log.read_text()
    finally:
        process.kill()
