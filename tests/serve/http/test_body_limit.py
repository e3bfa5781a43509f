"""The bound on request bodies, at the level of ASGI messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest

from serve.http.body_limit import BodyLimit


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def run(chunks: Iterable[bytes | None], headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """The answer to a body sent in `chunks`; None stands for silence."""
    sent: list[Any] = []
    queue = list(chunks)

    async def receive() -> Any:
        chunk = queue.pop(0)
        if chunk is None:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": chunk, "more_body": bool(queue)}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": raw}
    asyncio.run(BodyLimit(echo, max_bytes=10, max_s=0.05)(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


def test_what_takes_no_body_waits_for_none() -> None:
    async def ask() -> None:
        async def healthy(scope: Any, receive: Any, send: Any) -> None:
            answered.append(scope["method"])

        async def never() -> Any:
            await asyncio.sleep(60)

        answered: list[str] = []
        limit = BodyLimit(healthy, max_s=0.05)
        await limit({"type": "http", "method": "GET", "path": "/", "headers": []}, never, never)
        assert answered == ["GET"]

    asyncio.run(ask())


def test_a_small_body_passes_whole() -> None:
    assert run([b"12345", b"", b"67890"]) == (200, b"1234567890")
    assert run([b""]) == (200, b"")


@pytest.mark.parametrize(
    ("chunks", "headers"),
    [
        ([b"12345678901"], {}),
        ([b"123456", b"78901", b"never read"], {}),
        ([b"never read"], {"content-length": "11"}),
        ([b"never read"], {"content-length": "9" * 5000}),
        ([b"never read"], {"content-length": "-1"}),
        ([b"12345678901"], {"content-length": "3"}),
    ],
)
def test_a_large_one_does_not(chunks: list[bytes], headers: dict[str, str]) -> None:
    status, body = run(chunks, headers)
    assert status == 413
    assert json.loads(body)["detail"][0]["field"] == "body"


def test_a_body_that_trickles_is_refused() -> None:
    status, body = run([b"1", None, b"2"])
    assert status == 408
    assert json.loads(body)["detail"][0]["type"] == "slow"
