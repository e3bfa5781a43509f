"""One id a request, before Ray Serve sees it: Serve answers and logs whatever header came."""

from __future__ import annotations

import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.schemas.request_id import sane_id

HEADER = "X-Request-Id"
#: Environment variable by which Serve learns of `middlewares`.
VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"


class SaneRequestId:
    """ASGI middleware: a request without exactly one sane id gets a new one in the place of all."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] == "http" and sane_id(Headers(scope=scope).getlist(HEADER)) is None:
            scope = dict(scope)
            headers = MutableHeaders(scope=scope)
            del headers[HEADER]
            headers[HEADER] = uuid.uuid4().hex
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """What Serve is to put around each replica and its own proxy; it imports this by its name."""
    return [Middleware(SaneRequestId)]
