"""Clients that note every answer: when it came, how long it took, what it was.

`wrk` gives one figure for all of a run, and mixes refusals with answers. These are plain sockets in
one thread, some 100 microseconds of CPU a request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import urlsplit

import numpy as np

#: Longest wait for an answer, if nothing else is asked for.
MAX_S = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Attributes:
        at: when it came, `time.monotonic`.
        seconds: from sending to its last byte.
        status: HTTP status; 0: the connection broke, or none came.
        retry_after: whether it says when to try again.
    """

    at: float
    seconds: float
    status: int
    retry_after: bool


@dataclass
class Clients:
    """Connections, each with one request at a time.

    Args:
        url: what is asked, by POST.
        bodies: JSON, one after the other.
        headers: sent with each.
        pause_s: from one request of a connection to its next; 0: as soon as it is answered.
        patience_s: longest wait for an answer.

    Attributes:
        connections: how many there are to be; may be changed while they run.
        answers: in the order they came.
    """

    url: str
    bodies: Sequence[str]
    pause_s: float = 0.0
    connections: int = 0
    answers: list[Answer] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)
    patience_s: float = MAX_S

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        self._at = (str(parts.hostname), int(parts.port or 80))
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        head += "Content-Type: application/json\r\nContent-Length: "
        self._requests = [f"{head}{len(body)}\r\n\r\n{body}".encode() for body in self.bodies]
        self._next = count()

    async def run(self, seconds: float) -> None:
        """Ask for so long."""
        await self.follow([self.connections] * 10, seconds / 10)

    async def follow(self, levels: Sequence[int], step_s: float) -> None:
        """Have so many connections, one level after the other; the last requests are awaited."""
        tasks: list[asyncio.Task[None]] = []
        began = time.monotonic()
        for step, self.connections in enumerate(levels, start=1):
            tasks = [task for task in tasks if not task.done()]
            at_work = {int(task.get_name()) for task in tasks}
            tasks += [
                asyncio.create_task(self._ask(number), name=str(number))
                for number in range(self.connections)
                if number not in at_work
            ]
            await asyncio.sleep(max(began + step * step_s - time.monotonic(), 0))
        self.connections = 0
        await asyncio.gather(*tasks)

    async def run_until(self, done: asyncio.Event) -> None:
        """Ask until something has happened; the last requests are awaited."""
        tasks = [asyncio.create_task(self._ask(number)) for number in range(self.connections)]
        await done.wait()
        self.connections = 0
        await asyncio.gather(*tasks)

    async def _ask(self, number: int) -> None:
        # Spread over the pause, so that a crowd is no wave.
        due = time.monotonic() + self.pause_s * number / max(self.connections, 1)
        reader = writer = None
        while number < self.connections:
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(min(wait, 0.2))
                continue
            began = time.monotonic()
            due = max(due + self.pause_s, began)
            status, is_open, retry_after = 0, False, False
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                async with asyncio.timeout(self.patience_s):
                    if reader is None or writer is None:
                        reader, writer = await asyncio.open_connection(*self._at)
                    writer.write(self._requests[next(self._next) % len(self._requests)])
                    status, is_open, retry_after = await _read(reader)
            now = time.monotonic()
            self.answers.append(Answer(now, now - began, status, retry_after))
            if not is_open and writer is not None:
                writer.close()
                reader = writer = None
            if status == 0:
                await asyncio.sleep(0.05)  # a port that refuses is not to be hammered
        if writer is not None:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> tuple[int, bool, bool]:
    """Status, whether the connection stays open, and whether it says when to try again."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    lines = head.split(b"\r\n")
    fields = dict(line.split(b": ", 1) for line in lines[1:] if b": " in line)
    length = fields.get(b"content-length")
    if length is not None:
        await reader.readexactly(int(length))
    elif fields.get(b"transfer-encoding") == b"chunked":
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    else:
        await reader.read()
    is_open = fields.get(b"connection") != b"close" and (length is not None or b"chunked" in head)
    return int(lines[0].split(b" ")[1]), is_open, b"retry-after" in fields


def percentile_ms(answers: Sequence[Answer], share: float) -> float:
    """A percentile of their times, milliseconds; NaN of none."""
    times = [1000 * answer.seconds for answer in answers]
    return float(np.percentile(times, share)) if times else float("nan")
