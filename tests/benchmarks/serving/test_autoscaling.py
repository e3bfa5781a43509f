"""What the benchmarks of scaling and overload make of what they saw, and their clients."""

from __future__ import annotations

import asyncio
import json
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.serving.autoscaling import HIGH, LOW, Delays, Second, delays, picture
from benchmarks.serving.clients import Answer, Clients
from benchmarks.serving.overload import SETTLE_S, render, summary


def second(at: float, connections: int, replicas: int, started: int) -> Second:
    return Second(at, connections, replicas, started, 10, 1.0, float("nan"), 0)


def test_delays_are_counted_from_the_change_of_the_load() -> None:
    levels = [LOW] * 3 + [HIGH] * 6 + [LOW] * 5
    replicas = [1, 1, 1, 1, 1, 1, 2, 2, 3, 3, 3, 2, 1, 1]
    started = [1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 3, 2, 1]
    seen = [second(*each) for each in zip(range(14), levels, replicas, started, strict=True)]
    assert delays(seen, 3) == Delays(decided=2, first=4, full=6, gone=4)
    assert delays(seen[:7], 3).full is None
    assert ET.fromstring(picture(seen)).tag.endswith("svg")


def test_overload_tells_refusals_from_failures() -> None:
    begin, late = 100.0, 100.0 + SETTLE_S + 1
    answers = [Answer(begin + 0.1, 0.1, 500, False)]  # while it settles: not counted
    answers += [Answer(late, 0.2, 200, False)] * 6 + [Answer(late, 0.01, 503, True)] * 3
    answers += [Answer(late, 0.01, 503, False), Answer(late, 0.01, 0, False)]
    found = summary("x", 5, answers, 2.0)
    assert (found.goodput, found.refused, found.failed) == (3.0, 3 / 11, 2)
    assert (found.p50_ms, found.refused_p99_ms) == (pytest.approx(200), pytest.approx(10))
    assert "| 1.00 |" in render([found])[-1]


@asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[str]:
    """A server that answers the same to everything and counts what it was asked."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert json.loads(await reader.readexactly(length)) == {"k": 1}
            writer.write(reply)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/recommend"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n", 503),
    ],
)
def test_clients_keep_to_their_pace(reply: bytes, status: int) -> None:
    async def run() -> list[Answer]:
        async with answering(reply) as url:
            clients = Clients(url, ['{"k": 1}'], pause_s=0.2, connections=4)
            await clients.run(1.0)
            return clients.answers

    answers = asyncio.run(run())
    assert {(each.status, each.retry_after) for each in answers} == {(status, status == 503)}
    assert 8 <= len(answers) <= 24, "four connections, five times each"


def test_a_port_that_refuses_is_a_failure() -> None:
    clients = Clients("http://127.0.0.1:1/recommend", ["{}"], connections=1)
    asyncio.run(clients.run(0.2))
    assert {each.status for each in clients.answers} == {0}
