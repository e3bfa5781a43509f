"""Checks before a body is read: a plain path, a JSON body; and HEAD beside GET."""

from __future__ import annotations

import email.message
import re
from collections.abc import Container

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.schema import CONTROL_CHARS
from serve.schemas.problems import refusal

_CONTROL_CHAR = re.compile(CONTROL_CHARS)


class RequestForm:
    """ASGI middleware: refuses requests that no route takes.

    422 a path with control characters: routers leave a line break at its end out. 415 a body that
    is encoded, or is not JSON by its type. HEAD is answered as GET is, without the body.

    Args:
        app: answers the rest.
        with_body: paths that take a body by POST.
    """

    def __init__(self, app: ASGIApp, with_body: Container[str]) -> None:
        self._app, self._with_body = app, with_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if (no := self._refused(scope)) is not None:
            return await no(scope, receive, send)
        if scope["method"] != "HEAD":
            return await self._app(scope, receive, send)

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, without_body)

    def _refused(self, scope: Scope) -> Response | None:
        if _CONTROL_CHAR.search(scope["path"]):
            return refusal(422, [(("path",), "holds control characters", "id")])
        if scope["method"] != "POST" or scope["path"] not in self._with_body:
            return None
        headers = Headers(scope=scope)
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            msg = "send the body as it is, without content-encoding"
            return refusal(415, [((), msg, "content_encoding")])
        if not _is_json(headers.get("content-type", "")):
            msg = "the body has to be JSON: send `content-type: application/json`"
            return refusal(415, [((), msg, "content_type")])
        return None


def _is_json(content_type: str) -> bool:
    if content_type == "application/json":  # nearly always
        return True
    header = email.message.Message()
    header["content-type"] = content_type
    kind, charset = header.get_content_type(), header.get_content_charset("utf-8")
    is_json = kind == "application/json" or (kind[:12] == "application/" and kind[-5:] == "+json")
    return is_json and charset in ("utf-8", "utf8", "us-ascii")
