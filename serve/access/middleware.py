"""Authentication, rights and rates of requests, before their bodies are read.

It stands in the application because each replica's own port can be reached past the proxy.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.access.key_ring import KeyRing
from serve.access.rights import PUBLIC_PATHS, required_right
from serve.observability.trace import current
from serve.schemas.callers import RIGHTS, Right
from serve.schemas.problems import refusal


class AccessMiddleware:
    """ASGI middleware: answers 401, 403 or 429 to a caller who may not ask.

    Args:
        app: answers the rest.
        keys: that are known.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        await self._answerer(scope)(scope, receive, send)

    def _answerer(self, scope: Scope) -> ASGIApp:
        if scope["type"] != "http":
            return self._app
        path = scope["path"]
        if path in PUBLIC_PATHS:
            return self._app
        right = required_right(scope["method"], path)
        return authorise(self._keys, Headers(scope=scope), right, path) or self._app


def authorise(
    keys: KeyRing, headers: Mapping[str, str], right: Right | None, path: str
) -> Response | None:
    """Find the caller of a request and check that it may ask.

    Args:
        keys: that are known.
        headers: of the request, their names in small letters.
        right: that the request takes; None: all of them.
        path: what it asks.

    Returns:
        The answer to a caller who may not; None: it may, and is the current request's caller.
    """
    text = _text_of(headers)
    caller = keys.authenticate(text) if text else None
    if caller is None:
        return _unauthorised(sent=text is not None)
    if not ({right} if right else set(RIGHTS)) <= caller.rights:
        lacks = f": it lacks the right `{right}`" if right else ""
        return refusal(403, [((), f"this key does not open {path}{lacks}", "forbidden")])
    if wait := keys.wait_s(caller):
        return _too_many(wait)
    current().caller = caller
    return None


def _text_of(headers: Mapping[str, str]) -> str | None:
    """The key or user token that a request carries."""
    scheme, _, text = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and text.strip():
        return text.strip()
    return headers.get("x-api-key")


def _unauthorised(*, sent: bool) -> Response:
    msg = "this key is not known" if sent else "send a key: `Authorization: Bearer <key>`"
    answer = refusal(401, [((), msg, "unauthorised")])
    answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def _too_many(wait_s: float) -> Response:
    answer = refusal(429, [((), "this key asks too often", "rate")])
    answer.headers["Retry-After"] = str(max(1, round(wait_s + 0.5)))
    return answer
