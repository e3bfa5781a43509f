"""The service in a process of its own, by the clock of the generated days, asked over HTTP."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

from benchmarks.ports import free_ports
from recsys.errors import DataError
from recsys.state import CLOCK_FILE

#: Clients at once.
CONNECTIONS: Final = 4
#: Seconds that the service may take to start.
START_S: Final = 300.0


@dataclass(frozen=True)
class Call:
    """A request.

    Attributes:
        path: e.g. `/recommend`.
        body: as JSON.
        request_id: that it is sent under; None: the service chooses one.
    """

    path: str
    body: Mapping[str, Any]
    request_id: str | None = None


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes:
        port: on loopback.
        clock: the file whose modification time is the service's time.
        log: what the service prints.
    """

    port: int
    clock: Path
    log: Path

    def set_clock(self, now: dt.datetime) -> None:
        """Set the service's time."""
        set_clock(self.clock, now)

    def ask(self, calls: Sequence[Call]) -> list[dict[str, Any]]:
        """Send requests, some at once; the answers in their order.

        Raises:
            DataError: one is not answered 200.
        """
        parts = [calls[number::CONNECTIONS] for number in range(CONNECTIONS)]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            answers = list(pool.map(self._one_after_the_other, parts))
        return [answers[at % CONNECTIONS][at // CONNECTIONS] for at in range(len(calls))]

    def _one_after_the_other(self, calls: Sequence[Call]) -> list[dict[str, Any]]:
        connection, answers = HTTPConnection("127.0.0.1", self.port, timeout=60), []
        for call in calls:
            headers = {"Content-Type": "application/json"}
            if call.request_id is not None:
                headers["X-Request-Id"] = call.request_id
            connection.request("POST", call.path, json.dumps(call.body), headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise DataError(
                    f"answers {answer.status}: {text.decode()[:500]}", where=call.path,
                    value=json.dumps(call.body)[:500], fix="this is a fault of the benchmark or of "
                    f"the service: read {self.log}",
                )  # fmt: skip
            answers.append(json.loads(text))
        connection.close()
        return answers


def set_clock(file: Path, now: dt.datetime) -> None:
    """Set a file's modification time, which is the time of a service that is told so."""
    nanoseconds = int(now.timestamp()) * 1_000_000_000
    file.touch()
    os.utime(file, ns=(nanoseconds, nanoseconds))


@contextmanager
def served(config: Path, port: int, clock: Path, log: Path) -> Iterator[Service]:
    """The champion, served until the block ends.

    Args:
        config: the recipe's file.
        port: of the recipe.
        clock: see `Service`.
        log: likewise.

    Raises:
        DataError: it does not start.
    """
    metrics, stats = free_ports(2)
    # Nothing of the Ray of this process, which runs the nights.
    environment = {name: value for name, value in os.environ.items() if name[:4] != "RAY_"} | {
        CLOCK_FILE: str(clock),
        "RAY_AUTH_MODE": "token",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
    }
    command = [sys.executable, "-m", "serve", "--config", str(config)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait(process, log)
        yield Service(port, clock, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not re.search(r"^update ", log.read_text(), re.MULTILINE):
        if process.poll() is not None or time.monotonic() > deadline:
            raise DataError(
                f"the service does not start: {log.read_text()[-1000:]}", where=log,
                fix="read the log",
            )  # fmt: skip
        time.sleep(0.2)
