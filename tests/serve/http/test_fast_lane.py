"""What goes past FastAPI, and what does not."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from typing import Any

import pytest
from bundles import item_id
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response

from recsys.errors import DataError
from serve.core.service import Service
from serve.http import routes
from serve.http.fast_lane import FastLane
from serve.http.routes import _add_routes, build_http
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


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/recommend", {"history": [{"item_id": item_id(1)}], "k": 3}),
        ("/recommend", {"user_id": "nobody", "k": 0}),
        ("/recommend", {"user_id": "nobody", "k": 2.0}),
        ("/recommend", {"user_id": "nobody", "filters": {"min_price": 2, "max_price": 1}}),
        ("/rank", {"user_id": "nobody", "candidates": [item_id(1), item_id(0)]}),
        ("/rank", {"user_id": "nobody", "candidates": [item_id(1), {"title": "a red lamp"}]}),
        ("/rank", {"user_id": "nobody", "candidates": [item_id(1), "who"]}),
        ("/rank", {"user_id": "nobody", "candidates": []}),
        ("/events", {"user_id": "x", "item_id": item_id(1), "event_type": "view", "event_id": "1"}),
        ("/events", {"events": [{"user_id": "x", "item_id": "y", "event_type": "who"}],
                         "atomic": True}),
            ("/events", {"events": [{"user_id": "x", "item_id": "y", "event_type": "view",
                                     "event_id": "1"}, 5]}),
        ("/events", {"user_id": "x", "item_id": item_id(1), "event_type": "view",
                     "timestamp": 1}),
        ("/events", []),
    ],
)  # fmt: skip
def test_past_the_framework_and_through_it_the_answer_is_the_same(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch, path: str, body: Any
) -> None:
    monkeypatch.setattr(routes, "FastLane", lambda app, lanes: app)
    through = TestClient(build_http(service), raise_server_exceptions=False)
    kinds = ("application/json; charset=utf-8", "application/merge-patch+json")
    fast, slow = (
        each.post(
            path, content=json.dumps(body),
            headers={"Content-Type": kind, "X-Request-Id": "the-same"},
        )
        for each, kind in zip((client, through), kinds, strict=True)
    )  # fmt: skip
    assert fast.status_code == slow.status_code
    if path == "/events" and fast.status_code == 200:  # the second time it is known
        assert (fast.json()["stored"], slow.json()["stored"]) == (1, 0)
        return
    assert fast.json() == slow.json()
    assert fast.headers == slow.headers


@pytest.mark.parametrize(
    ("path", "body", "takes"),
    [
        ("/recommend", {"history": [{"item_id": "a"}], "k": 3, "diversity": 0.5}, True),
        ("/rank", {"user_id": "nobody", "candidates": ["a", "b"], "k": 1}, True),
        ("/rank", {"user_id": "nobody", "candidates": ["a", {"title": "a red lamp"}]}, False),
        ("/events", {"user_id": "x", "item_id": "a", "event_type": "view"}, True),
        ("/events", {"events": [{"user_id": "x", "item_id": "a", "event_type": "view"}]}, True),
    ],
)
def test_what_goes_past_the_framework(
    client: TestClient, service: Service, path: str, body: Any, takes: bool
) -> None:
    body_type, _ = _add_routes(FastAPI(), service)[path]
    with nullcontext() if takes else pytest.raises(ValidationError):
        body_type.validate_json(json.dumps(body))
