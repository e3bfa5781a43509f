"""What goes past FastAPI, and what does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import TypeAdapter
from starlette.responses import Response

from recsys.errors import DataError
from serve.http.fast_lane import FastLane
from serve.schemas.problems import Refused, Unavailable


async def double(number: int) -> Response:
    match number:
        case 1:
            raise Refused(("number",), "one is too few", kind="few")
        case 2:
            raise Unavailable("not now")
        case 3:
            raise DataError("broken", where="file", fix="fix it")
    return Response(str(2 * number))


def send(body: bytes, path: str = "/double", method: str = "POST") -> Any:
    """Status of the lane's answer, or the body that FastAPI got."""
    elsewhere: list[bytes] = []
    sent: list[Any] = []

    async def framework(scope: Any, receive: Any, send: Any) -> None:
        elsewhere.append((await receive())["body"])

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def sending(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": []}
    lane = FastLane(framework, {"/double": (TypeAdapter(int), double)})
    asyncio.run(lane(scope, receive, sending))
    if elsewhere:
        assert not sent
        return elsewhere[0]
    return sent[0]["status"]


def test_valid_json_goes_past_the_framework() -> None:
    assert send(b"21") == 200


@pytest.mark.parametrize(("body", "status"), [(b"1", 422), (b"2", 503), (b"3", 503)])
def test_what_cannot_be_answered_is_told_as_elsewhere(body: bytes, status: int) -> None:
    assert send(body) == status


@pytest.mark.parametrize("body", [b"", b"no json", b'"x"', b"\xff"])
def test_a_wrong_body_is_refused_by_the_framework(body: bytes) -> None:
    assert send(body) == body


@pytest.mark.parametrize(
    "other",
    [{"path": "/double/"}, {"method": "PUT"}],
)
def test_whatever_else_comes_is_the_framework_s(other: dict[str, Any]) -> None:
    assert send(b"21", **other) == b"21"
