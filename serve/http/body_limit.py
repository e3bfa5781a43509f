"""Limits of a request's body, in bytes and in seconds.

It stands in the application because each replica's own port can be reached past the proxy, and the
proxy of a cluster that others started has none.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.schemas.problems import refusal

MAX_BODY_BYTES = 1 << 20
#: A body that trickles in holds one of the replica's few places for requests.
MAX_BODY_S = 10.0


class BodyLimit:
    """ASGI middleware: reads the body, answers 413 or 408 to one too large or too slow.

    It hands it on in one message.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES, max_s: float = MAX_BODY_S
    ) -> None:
        self._app, self._max_bytes, self._max_s = app, max_bytes, max_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http" or scope["method"] != "POST":  # nothing else takes a body
            return await self._app(scope, receive, send)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and len(declared) < 20 and int(declared) <= self._max_bytes:
            pass
        elif declared:
            return await self._too_large()(scope, receive, send)
        try:
            async with asyncio.timeout(self._max_s):
                body = await self._read(receive)
        except TimeoutError:
            slow = refusal(408, [((), f"the body did not arrive within {self._max_s:g} s", "slow")])
            return await slow(scope, receive, send)
        if body is None:
            return await self._too_large()(scope, receive, send)
        return await self._app(scope, Replayed(body, receive), send)

    async def _read(self, receive: Receive) -> Message | None:
        """The body in one message, or that the client has left; None if it is too large."""
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return message
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_bytes:
                return None
            if not message.get("more_body", False):
                return {"type": "http.request", "body": b"".join(parts), "more_body": False}

    def _too_large(self) -> Response:
        return refusal(413, [((), f"larger than {self._max_bytes} bytes", "too_large")])


class Replayed:
    """`receive` that gives a message again, then waits for the client as before."""

    def __init__(self, message: Message, receive: Receive) -> None:
        self._message: Message | None = message
        self._receive = receive

    async def __call__(self) -> Message:
        """See the ASGI specification."""
        message, self._message = self._message, None
        return await self._receive() if message is None else message
