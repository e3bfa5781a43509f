"""Deployment: the ranking service, scaled by its load; HTTP and gRPC around it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from google.protobuf.message import Message
from numpy.typing import NDArray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.grpc_util import RayServegRPCContext
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from recsys.errors import RaycommendError
from recsys.storage.location import Place, place_of
from serve.core.service import Service
from serve.grpc.servicer import Rpc
from serve.http.routes import build_http
from serve.models.arms import ResolvedArm
from serve.ray.metrics import RayMetrics
from serve.schemas.problems import Unavailable
from serve.settings import Settings

logger = logging.getLogger("ray.serve")

#: Longest wait for the text encoder; a full request of new items takes a few seconds on a CPU.
MAX_ENCODE_S = 60.0
#: Seconds between two reports of the gauges; Ray exports every ten by default.
REPORT_S = 1.0


@serve.ingress()
class Ranking:
    """One replica of the service.

    Args:
        settings: see `Settings`, as plain data.
        encoder: the `TextEncoder` deployment.
    """

    def __init__(self, settings: dict[str, Any], encoder: DeploymentHandle[Any]) -> None:
        # A request is one small matrix product: threads inside it cost more than they bring, and
        # the replicas share the machine.
        torch.set_num_threads(1)
        self._encoder = encoder
        self._service = Service(Settings.model_validate(settings), self._encode, RayMetrics())
        self._rpc = Rpc(self._service, _set_serve_request_id)
        self._following: asyncio.Task[None] | None = None
        threading.Thread(target=self._report, name="report", daemon=True).start()

    def __serve_build_asgi_app__(self) -> ASGIApp:  # noqa: PLW3201 - Ray's name for it
        """The HTTP application; Ray calls this once a replica."""
        return build_http(self._service, answers_id=False)

    # Ray calls these by the names of the protocol, and hands a context to `grpc_context`.

    async def Recommend(self, request: bytes, grpc_context: RayServegRPCContext) -> Message:
        """See `Rpc`."""
        return await self._rpc.Recommend(request, grpc_context)

    async def Rank(self, request: bytes, grpc_context: RayServegRPCContext) -> Message:
        """See `Rpc`."""
        return await self._rpc.Rank(request, grpc_context)

    async def Events(self, request: bytes, grpc_context: RayServegRPCContext) -> Message:
        """See `Rpc`."""
        return await self._rpc.Events(request, grpc_context)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve another bundle or other arms; Ray calls this with each new `user_config`.

        Args:
            user_config: `bundle`, its folder or URI; its `version`; `arms`, if there are any.

        Raises:
            RaycommendError: it cannot be loaded, and there is no earlier one. Later a broken bundle
                is logged, reported by `GET /model`, and not served: an error here would make Serve
                replace the replica with one that has no model at all.
        """
        arms = [ResolvedArm.model_validate(arm) for arm in user_config["arms"]]
        await self._service.load(place_of(user_config["bundle"]), user_config["version"], arms)
        if self._following is None:
            self._following = asyncio.create_task(self._service.follow())

    async def drain(self) -> None:
        """See `Service.drain`; `recsys serve` calls this before it ends, and `close` after."""
        self._service.drain()

    async def close(self) -> None:
        """See `Service.close`."""
        if self._following is not None:
            self._following.cancel()
        await asyncio.to_thread(self._service.close)

    def _report(self) -> None:
        while True:
            try:
                self._service.report()
            except Exception:  # gauges stop for a moment, not for good
                logger.exception("gauges are not reported")
            time.sleep(REPORT_S)

    async def _encode(
        self, place: Place, version: str, items: list[dict[str, str | None]]
    ) -> NDArray[np.float32]:
        try:
            async with asyncio.timeout(MAX_ENCODE_S):
                return await self._encoder.encode.remote(str(place), version, items)
        except RaycommendError:  # a broken bundle; Ray lets it through as what it is
            raise
        except (RayError, RayServeException, TimeoutError) as error:
            raise Unavailable(
                f"the text encoder does not answer ({type(error).__name__})"
            ) from error


def _set_serve_request_id(request_id: str) -> None:
    """Give Serve's log the request's id: of gRPC requests Serve does not know the sender's."""
    context = serve.context._get_serve_request_context()
    replaced = replace(context, request_id=request_id)
    serve.context._serve_request_context.set(replaced)  # type: ignore[arg-type]
