"""Bodies that are refused, whatever is in them; none breaks the application."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from bundles import item_id
from fastapi.testclient import TestClient
from http_calls import post, refused_at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/recommend", {"user_id": "u", "k": 51}, "k"),
        ("/recommend", {"user_id": "u", "k": 10**30}, "k"),
        ("/recommend", {"history": [{"item_id": "i", "event_type": "stare"}]},
         "history[0].event_type"),
        ("/rank", {"user_id": "u", "candidates": [item_id(1)], "k": 41}, "k"),
        ("/rank", {"user_id": "u", "candidates": [item_id(1)] * 41}, "candidates"),
        ("/rank", {"user_id": "u", "candidates": []}, "candidates"),
        ("/events", {"user_id": "u", "item_id": "i", "event_type": "stare"}, "event_type"),
        ("/events", {"events": [{"user_id": "u", "item_id": "i", "event_type": "stare"}],
                     "atomic": True}, "events[0].event_type"),
    ],
)  # fmt: skip
def test_limits_of_the_recipe(client: TestClient, path: str, body: Any, field: str) -> None:
    assert refused_at(post(client, path, body, 422)) == [field]


RAW = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"\xff\xfe",
    b'{"user_id": "\xc3"}',
    b'{"user_id": "u", "k": NaN}',
    b'{"user_id": "u", "k": -Infinity}',
    b'{"user_id": "u", "k": ' + b"9" * 5000 + b"}",
    b'{"user_id": "u", "k": 1e400}',
    b'{"user_id": "\\ud800"}',
    b'{"\\ud800": 1, "user_id": "u"}',
    b'{"user_id": "\\u0000"}',
    b'{"user_id": "u", "filters": {"min_price": NaN}}',
    b'{"user_id": "u", "exclude": ["\\udfff"]}',
    b'{"history": [{"item_id": "\\u0000"}]}',
    b"[" * 200_000,
    b'{"user_id":' + b'{"a":' * 50_000,
    b'{"' + b"x" * 500_000 + b'": 1}',
]


@pytest.mark.parametrize("path", ["/recommend", "/rank", "/events"])
@pytest.mark.parametrize("body", RAW, ids=lambda v: repr(v)[:30])
def test_broken_bodies_are_the_senders_fault(client: TestClient, path: str, body: bytes) -> None:
    response = client.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422), response.text[:200]
    assert len(response.content) < 5000
    assert all(response.json()["detail"])


SURROGATES = st.text(st.characters(), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | SURROGATES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SURROGATES, inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["user_id", "history", "k", "exclude", "filters", "candidates", "events", "item_id",
          "event_type", "timestamp", "event_id", "title", "price"]  # fmt: skip
BODIES = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5) | JSON


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(path=st.sampled_from(["/recommend", "/rank", "/events"]), body=BODIES)
def test_no_body_gives_a_server_error(client: TestClient, path: str, body: Any) -> None:
    response = client.post(
        path, content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert all(problem["field"] for problem in response.json()["detail"])


def test_what_is_not_said_to_be_json_is_not_taken_for_it(client: TestClient) -> None:
    """A page of another site could send it without asking the browser first."""
    body = json.dumps({"user_id": "nobody"})
    for kind in (
        "text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=latin-1",
        "application/jsonp", "text/json", "json",
        "application/json; boundary=x; charset=latin-1", "application/json; charset=utf-16",
    ):  # fmt: skip
        answer = client.post("/recommend", content=body, headers={"Content-Type": kind})
        assert (answer.status_code, refused_at(answer.json())) == (415, ["body"]), kind
        assert "content-type: application/json" in answer.json()["detail"][0]["msg"]


@pytest.mark.parametrize(
    "kind",
    [
        "application/json;charset=UTF-8;", "application/json; charset=utf-8; x=1",
        'Application/JSON; charset="utf-8"', "application/vnd.shop+json",
    ],
)  # fmt: skip
def test_json_may_say_more_of_itself(client: TestClient, kind: str) -> None:
    body = json.dumps({"user_id": "nobody"})
    answer = client.post("/recommend", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 200


def test_a_body_that_is_packed_is_refused_as_that(client: TestClient) -> None:
    body, kind = gzip.compress(b'{"user_id": "nobody"}'), {"Content-Type": "application/json"}
    for how, status in (("gzip", 415), ("br", 415), ("identity", 400)):
        answer = client.post("/recommend", content=body, headers={**kind, "Content-Encoding": how})
        assert answer.status_code == status, how


@pytest.mark.parametrize("body", [b'{"k":', b"", b"{,}", b"\xff", b"nothing"])
@pytest.mark.parametrize("path", ["/recommend", "/events", "/items", "/users/erase"])
def test_what_is_no_json_is_told_so(client: TestClient, path: str, body: bytes) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (400, "json_invalid")
