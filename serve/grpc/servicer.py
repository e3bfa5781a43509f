"""The gRPC servicer: the hot routes, answered by the same `Service` under the same rules.

A refusal is made as for HTTP and translated, so that no rule and no message is written twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from pydantic import ValidationError
from starlette.responses import Response

from recsys.errors import RaycommendError
from serve.access.middleware import authorise
from serve.core.middleware import CLIENT_LEFT, record_request
from serve.core.serialization import Serialize
from serve.core.service import Service
from serve.grpc.messages import events_fields, rank_fields, recommend_fields
from serve.http.body_limit import MAX_BODY_BYTES
from serve.observability.request_ids import HEADER
from serve.observability.trace import begin_trace, current_id
from serve.protos import ranking_pb2 as pb
from serve.protos.server import SERVICE
from serve.schemas import problems
from serve.schemas.callers import Right
from serve.schemas.events import Events
from serve.schemas.problems import Refused, Unavailable, refusal
from serve.schemas.requests import RankRequest, RecommendRequest

logger = logging.getLogger("ray.serve")

#: HTTP status of a refusal -> the code of gRPC.
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    409: grpc.StatusCode.ALREADY_EXISTS,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
#: Where clients look for `google.rpc.Status`.
DETAILS = "grpc-status-details-bin"
#: Of these; clients take 8 KiB of metadata in all.
MAX_DETAILS_BYTES = 4096


class Context(Protocol):
    """What is used of a call's context: of `grpc.aio`'s, and of Ray Serve's."""

    def invocation_metadata(self) -> Any:
        """Pairs that the client sent."""

    def set_code(self, code: grpc.StatusCode) -> None:
        """Of the answer."""

    def set_details(self, details: str) -> None:
        """Its message."""

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Pairs that are sent after it."""


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        right: that it takes.
        request: message that it takes.
        answer: message that it gives.
        answered_by: service, request, serialize -> the answer.
    """

    right: Right
    request: type[Message]
    answer: type[Message]
    answered_by: Callable[[Service, Any, Serialize], Awaitable[Message]]


def _recommend(
    service: Service, request: pb.RecommendRequest, serialize: Serialize
) -> Awaitable[Message]:
    return service.recommend(RecommendRequest.model_validate(recommend_fields(request)), serialize)


def _rank(service: Service, request: pb.RankRequest, serialize: Serialize) -> Awaitable[Message]:
    return service.rank(RankRequest.model_validate(rank_fields(request)), serialize)


def _events(
    service: Service, request: pb.EventsRequest, serialize: Serialize
) -> Awaitable[Message]:
    return service.store(Events.model_validate(events_fields(request)), serialize)


METHODS = {
    "Recommend": Method("recommend", pb.RecommendRequest, pb.RecommendAnswer, _recommend),
    "Rank": Method("recommend", pb.RankRequest, pb.RankAnswer, _rank),
    "Events": Method("events", pb.EventsRequest, pb.EventsAnswer, _events),
}


class Rpc:
    """Answers the methods of `protos/ranking.proto`.

    Each takes the bytes of the request, since keys and size are checked before anything is parsed,
    and the call's context. A refusal sets code and details in the context and returns an empty
    answer: an exception would lose the details, and Serve would log each with its stack.

    Args:
        service: answers.
        on_request_id: called with each request's id.
    """

    def __init__(
        self, service: Service, on_request_id: Callable[[str], None] = lambda request_id: None
    ) -> None:
        self._service, self._on_request_id = service, on_request_id

    async def Recommend(self, request: bytes, context: Context) -> Message:
        """See the protocol."""
        return await self._answer("Recommend", request, context)

    async def Rank(self, request: bytes, context: Context) -> Message:
        """See the protocol."""
        return await self._answer("Rank", request, context)

    async def Events(self, request: bytes, context: Context) -> Message:
        """See the protocol."""
        return await self._answer("Events", request, context)

    async def _answer(self, name: str, body: bytes, context: Context) -> Message:
        method, path, service = METHODS[name], f"/{SERVICE}/{name}", self._service
        metadata = dict(context.invocation_metadata())
        trace = begin_trace(metadata.get(HEADER.lower()))
        self._on_request_id(trace.id)
        trailing, status = [(HEADER.lower(), trace.id)], 200
        service.ongoing += 1
        try:
            answer = await self._answered(method, path, body, metadata)
            if isinstance(answer, Response):
                status = answer.status_code
                error = error_of(answer)
                context.set_code(CODES[status])
                context.set_details(error.message)
                if error.details:
                    trailing.append((DETAILS, error.SerializeToString()))
                answer = method.answer()
            context.set_trailing_metadata(trailing)
            return answer
        except asyncio.CancelledError:
            status = CLIENT_LEFT
            raise
        finally:
            service.ongoing -= 1
            record_request(service, trace, path, status)

    async def _answered(
        self, method: Method, path: str, body: bytes, metadata: Mapping[str, str]
    ) -> Message | Response:
        """The answer; where the request is refused, the one that HTTP would give."""
        keys = self._service.keys
        if keys is not None and (no := authorise(keys, metadata, method.right, path)) is not None:
            return no
        if len(body) > MAX_BODY_BYTES:
            return refusal(413, [((), f"larger than {MAX_BODY_BYTES} bytes", "too_large")])

        def serialize(fields: dict[str, Any]) -> Message:
            return method.answer(request_id=current_id(), **fields)

        try:
            return await method.answered_by(
                self._service, method.request.FromString(body), serialize
            )
        except DecodeError:
            return refusal(400, [((), f"cannot be read as {method.request.__name__}", "decode")])
        except ValidationError as error:
            return problems.invalid(error)
        except (Refused, Unavailable, RaycommendError) as error:
            return problems.answer_to(error)
        except Exception:
            logger.exception("%s fails", path)
            return problems.failed()


def error_of(answer: Response) -> status_pb2.Status:
    """An HTTP refusal as a status of gRPC."""
    found = json.loads(bytes(answer.body))["detail"]
    first = found[0]
    message = f"{first['field']}: {first['msg']}" if first["loc"][1:] else first["msg"]
    error = status_pb2.Status(code=CODES[answer.status_code].value[0], message=message)
    if wait := answer.headers.get("Retry-After"):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromSeconds(int(wait))
        error.details.add().Pack(retry)
    if answer.status_code in (400, 413, 422):
        while found:
            bad_request = error_details_pb2.BadRequest(
                field_violations=[
                    {
                        "field": each["field"],
                        "description": each["msg"],
                        "reason": each["type"].upper(),
                    }
                    for each in found
                ]
            )
            if bad_request.ByteSize() <= MAX_DETAILS_BYTES:
                error.details.add().Pack(bad_request)
                break
            found.pop()
    return error
