"""A bypass of FastAPI for the hot routes: it takes longer than the model does."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.errors import RaycommendError
from serve.http.body_limit import Replayed
from serve.schemas.problems import Refused, Unavailable, answer_to, failed

logger = logging.getLogger("ray.serve")

#: Path of a POST -> the type of its body, and the route that answers it.
Lanes = Mapping[str, tuple[TypeAdapter[Any], Callable[[Any], Awaitable[Response]]]]


class FastLane:
    """ASGI middleware, the innermost: hands valid JSON to a route's own function.

    Everything else goes on to FastAPI, which has the same routes: a body that is wrong is refused
    there, so that no rule and no message is written twice.

    Args:
        app: takes the rest.
        lanes: the routes, by their path.
    """

    def __init__(self, app: ASGIApp, lanes: Lanes) -> None:
        self._app, self._lanes = app, lanes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        lane = self._lanes.get(scope.get("path", ""))
        if lane is None or scope.get("method") != "POST":
            return await self._app(scope, receive, send)
        body_type, route = lane
        message = await receive()  # `BodyLimit` has the whole body in one
        try:
            body = body_type.validate_json(message.get("body", b""))
        except ValidationError:
            return await self._app(scope, Replayed(message, receive), send)
        try:
            answer = await route(body)
        except (Refused, Unavailable, RaycommendError) as error:
            answer = answer_to(error)
        except Exception:
            logger.exception("%s fails", scope["path"])
            answer = failed()
        await answer(scope, receive, send)
