"""Observability: every request gets an id, is counted and timed, and some are logged."""

from __future__ import annotations

import asyncio
import logging
import random

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.access.rights import PUBLIC_PATHS, REQUIRED_RIGHTS
from serve.core.service import Service
from serve.observability.request_ids import HEADER
from serve.observability.trace import Trace, begin_trace
from serve.schemas.request_id import sane_id

logger = logging.getLogger("ray.serve")

#: Paths that metrics and logs name; any other may hold anything, and is `other`.
_PATHS = PUBLIC_PATHS | REQUIRED_RIGHTS.keys()


def path_label(path: str) -> str:
    """The path as metrics and logs name it: without the id that some paths end with."""
    if path in _PATHS:
        return path
    above = path[: path.find("/", 1) + 1]
    return above if above in _PATHS else "other"


#: A request that takes longer is always logged.
SLOW_S = 1.0
#: Label in place of an arm's name; no arm has this name.
NONE = "-"
#: Status of a request whose client left before it was answered, as nginx has it.
CLIENT_LEFT = 499


class ObservabilityMiddleware:
    """ASGI middleware, the outermost.

    Args:
        app: answers.
        service: holds the metrics, the share of logged requests and the count of ongoing ones.
        answers_id: put the id into the answer's header; Ray Serve does it by itself.
    """

    def __init__(self, app: ASGIApp, service: Service, *, answers_id: bool) -> None:
        self._app, self._service, self._answers_id = app, service, answers_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        trace = begin_trace(sane_id(Headers(scope=scope).getlist(HEADER)))
        status = 500  # what an exception that nobody handles is answered with

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._answers_id:
                    MutableHeaders(scope=message)[HEADER] = trace.id
            await send(message)

        self._service.ongoing += 1
        try:
            await self._app(scope, receive, sending)
        except asyncio.CancelledError:
            status = CLIENT_LEFT
            raise
        finally:
            self._service.ongoing -= 1
            record_request(self._service, trace, path_label(scope["path"]), status)


def record_request(service: Service, trace: Trace, path: str, status: int) -> None:
    """Count and time an answered request; log a share of them, and all that fail or are slow.

    Args:
        service: holds the metrics and the share of logged requests.
        trace: the request.
        path: its route, one of few.
        status: HTTP status; for gRPC that of the same answer over HTTP.
    """
    elapsed, metrics = trace.elapsed(), service.metrics
    metrics.count("requests_total", path=path, status=str(status))
    metrics.observe("request_seconds", elapsed, path=path)
    stages = trace.seconds.copy()  # where the client left, a thread may still be at work
    for stage, seconds in stages.items():
        metrics.observe("stage_seconds", seconds, stage=stage)
    if trace.basis is not None:
        metrics.count(
            "answers_total",
            basis=trace.basis,
            arm=trace.arm or NONE,
            failed_arm=trace.failed_arm or NONE,
        )
    level = logging.INFO
    if status >= 500:
        level = logging.ERROR
    elif elapsed > SLOW_S:
        level = logging.WARNING
    elif random.random() >= service.log_requests:
        return
    logger.log(
        level,
        "request",
        extra={
            "request_id": trace.id,
            "path": path,
            "status": status,
            "milliseconds": round(1000 * elapsed, 1),
            "stages": {name: round(1000 * s, 1) for name, s in stages.items()},
            "model_version": trace.model_version,
            "basis": trace.basis,
            "arm": trace.arm,
            "failed_arm": trace.failed_arm,
            "num_items": trace.num_items,
        },
    )
