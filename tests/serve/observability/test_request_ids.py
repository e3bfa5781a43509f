"""Whatever a client sends as an id: header, body, log and impressions name one."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from recsys.config import Recipe
from recsys.data.feedback import Feedback, finished
from serve.core.service import Service
from serve.http.routes import build_http
from serve.observability.request_ids import HEADER, SaneRequestId, middlewares

#: Headers as a client sends them, and whether they are kept.
SENT = [
    ([], False),
    (["a-sane.id_1"], True),
    (["x" * 64], True),
    (["x" * 65], False),
    (["two words"], False),
    (["\u00e9"], False),
    ([""], False),
    ([" "], False),
    (["one", "two"], False),
    (["same", "same"], False),
    (["a\tb"], False),
]


class LikeServe:
    """What Serve puts around a replica: the header's first value is the id, as it came."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = Request(scope).headers[HEADER]

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((HEADER.lower().encode(), name.encode("latin-1")))
            await send(message)

        await self._app(scope, receive, sending)


@pytest.mark.parametrize(("values", "is_kept"), SENT)
def test_a_request_has_one_sane_id(values: list[str], is_kept: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(",".join(Request(scope).headers.getlist(HEADER)))(
            scope, receive, send
        )

    headers = [(HEADER.encode(), value.encode("latin-1")) for value in values]
    found = TestClient(SaneRequestId(app)).get("/", headers=headers).text
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", found)
    assert (found == "".join(values)) == is_kept


@pytest.mark.parametrize(("values", "is_kept"), SENT)
def test_header_body_log_and_impressions_name_one(
    service: Service, client: TestClient, recipe: Recipe, values: list[str], is_kept: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    service.log_requests = 1.0
    caplog.set_level("INFO", "ray.serve")
    app = LikeServe(build_http(service, answers_id=False))
    for each in reversed(middlewares()):
        app = each.cls(app, *each.args, **each.kwargs)
    headers = [(HEADER.encode(), value.encode("latin-1")) for value in values]
    answer = TestClient(app).post("/recommend", json={"user_id": "u"}, headers=headers)
    (told,) = answer.headers.get_list(HEADER)
    assert (told == "".join(values)) == is_kept
    service.close()
    import polars as pl

    (path,) = finished(Feedback.of(recipe.root).impressions)
    shown = set(pl.read_parquet(path)["request_id"])
    logged = {each.request_id for each in caplog.records if each.message == "request"}
    assert {answer.json()["request_id"]} == shown == logged == {told}
