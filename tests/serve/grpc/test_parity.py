"""What HTTP answers and refuses, bit for bit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bundles import SOLD_OUT, item_id
from fastapi.testclient import TestClient
from google.rpc import error_details_pb2
from grpc_calls import Code, error_of, fields_of, message_of, refusal
from services import Clock

from serve.core.service import Service
from serve.protos.ranking_pb2_grpc import RankingStub

PATHS = {"Recommend": "/recommend", "Rank": "/rank", "Events": "/events"}


class TestParity:
    SESSION = [
        {"item_id": item_id(4), "event_type": "purchase"},
        {"item_id": item_id(9)},
        {"item_id": "gone"},
    ]
    TIMED = [
        {"item_id": item_id(4), "timestamp": "2026-01-01T10:00:00Z"},
        {"item_id": item_id(40), "event_type": "buy", "timestamp": "2026-01-01T12:00:00.5+01:00"},
    ]
    KNOWN = {"user_id": "known"}

    @pytest.fixture(autouse=True)
    def _clock(self, client: TestClient, clock: Clock) -> None:
        event = {"user_id": "known", "item_id": item_id(7), "event_type": "buy"}
        assert client.post("/events", json=event).status_code == 200
        clock.now = 1_900_000_000_000_000

    @pytest.mark.parametrize(
        ("name", "body"),
        [
            ("Recommend", KNOWN),
            ("Recommend", {"user_id": "nobody", "k": 50}),
            ("Recommend", {"history": []}),
            ("Recommend", {"history": SESSION, "k": 7, "explain": True}),
            ("Recommend", {"history": TIMED, "exclude": [item_id(1), "gone"]}),
            ("Recommend", KNOWN | {"diversity": 0.4, "max_per_category": 1, "exclude_owned": True}),
            ("Recommend", KNOWN | {"diversity": 0.0, "exclude_owned": False, "exclude": []}),
            ("Recommend", KNOWN | {"filters": {"category": ["cup", "pen"], "max_price": 90.5}}),
            ("Recommend", KNOWN | {"filters": {"brand": ["acme"], "min_price": 0.0}, "k": 3}),
            ("Recommend", KNOWN | {"filters": {}}),
            ("Rank", KNOWN | {"candidates": [item_id(row) for row in (3, 1, 2, 3, 299)]}),
            ("Rank", {"history": SESSION, "k": 2,"candidates": [item_id(1), SOLD_OUT, item_id(5)]}),
            (
                "Rank",
                KNOWN
                | {
                    "explain": True,
                    "candidates": [
                        {"title": "red cup", "brand": "acme", "price": 0.0},
                        item_id(8),
                        {"title": "blue pen", "item_id": "mine", "description": "new", "tags": ""},
                    ],
                },
            ),
        ],
    )  # fmt: skip
    def test_answers(
        self, client: TestClient, stub: RankingStub, name: str, body: dict[str, Any]
    ) -> None:
        response = client.post(PATHS[name], json=body)
        assert response.status_code == 200, response.text
        expected = response.json()
        del expected["request_id"]
        for item in expected["items"]:
            if item["item_id"] is None:
                del item["item_id"]
        found = fields_of(getattr(stub, name)(message_of(name, body)))
        assert found == expected
        assert found["items"]

    def test_events(self, client: TestClient, stub: RankingStub) -> None:
        events = [
            {"user_id": "new", "item_id": item_id(3), "event_type": "view", "event_id": "one"},
            {"user_id": "new", "item_id": "gone", "event_type": "buy"},
            {"user_id": "new", "item_id": item_id(3), "event_type": "ping"},
        ]
        answer = stub.Events(message_of("Events", {"events": events}))
        assert fields_of(answer) == {
            "received": 3, "stored": 2, "ignored": 1, "unknown_items": ["gone"], "repeated": [],
            "conflicts": [], "older_than_erasure": [], "refused": 0,
            "results": [{"status": "stored"}, {"status": "stored"}, {"status": "ignored"}],
        }  # fmt: skip
        wrong = {"events": [events[0], {**events[1], "item_id": ""}]}
        stored, refused = fields_of(stub.Events(message_of("Events", wrong)))["results"]
        assert stored == {"status": "duplicate"}
        assert (refused["status"], refused["field"]) == ("refused", "item_id")
        again = client.post("/events", json=events[0]).json()
        assert again["stored"] == 0, "the same event"
        assert client.post("/recommend", json={"user_id": "new"}).json()["basis"] == "personal"

    def test_what_else_an_event_tells(
        self, client: TestClient, stub: RankingStub, service: Service
    ) -> None:
        told = {"value": 2.5, "placement": "home/top", "sent_at": "2030-03-17T10:00:00Z"}
        event = {"user_id": "new", "item_id": item_id(3), "event_type": "view", **told}
        context = {"a": {"text": "x"}, "b": {"number": 2.0}, "c": {"flag": False}}
        message = message_of("Events", {"events": [{**event, "context": context}]})
        assert stub.Events(message).stored == 1
        plain = {"a": "x", "b": 2, "c": False}
        assert client.post("/events", json={**event, "context": plain}).status_code == 200
        waiting = service._users._state.claim(9)
        assert waiting is not None
        rpc, http = (json.loads(each.details or "{}") for each in waiting.events[1:])
        assert rpc == http == {
            "value": 2.5, "placement": "home/top", "context": '{"a":"x","b":2,"c":false}',
        }  # fmt: skip
        empty = message_of("Events", {"events": [{**event, "context": {"a": {}}}], "atomic": True})
        assert "context.a" in refusal(stub.Events, empty).details()

    @pytest.mark.parametrize(
        ("name", "body"),
        [
            ("Recommend", {}),
            ("Recommend", {"user_id": ""}),
            ("Recommend", {"user_id": "u", "k": 0}),
            ("Recommend", {"user_id": "u", "k": 51}),
            ("Recommend", {"user_id": "u", "diversity": 1.5}),
            ("Recommend", {"user_id": "u", "exclude": ["", "a\u0000"]}),
            ("Recommend", {"user_id": "u", "filters": {"min_price": 2.0, "max_price": 1.0}}),
            ("Recommend", {"history": [{"item_id": "a"}, {"item_id": "b", "event_type": "stare"}]}),
            ("Recommend", {"history": [{"item_id": "a", "timestamp": "2026-01-01"}]}),
            ("Recommend", {"history": [{"item_id": "a", "timestamp": "2999-01-01T00:00:00Z"}]}),
            ("Recommend", {"history": [{"item_id": "a"}] * 2001}),
            ("Rank", {"user_id": "u", "candidates": []}),
            ("Rank", {"user_id": "u", "candidates": [item_id(1)], "k": 41}),
            ("Rank", {"user_id": "u", "candidates": [""]}),
            ("Rank", {"user_id": "u", "candidates": [item_id(1)] * 41}),
            ("Rank", {"user_id": "u", "candidates": [{"title": " "}]}),
            ("Rank", {"user_id": "u", "candidates": [{"title": "red cup", "price": -1.0}]}),
            ("Rank", {"user_id": "u", "candidates": [{"title": "?", "item_id": "x"}]}),
            ("Events", {"events": []}),
            (
                "Events",
                {
                    "events": [{"user_id": "u", "item_id": "i", "event_type": "stare"}],
                    "atomic": True,
                },
            ),
            (
                "Events",
                {
                    "events": [
                        {"user_id": "u", "item_id": "", "event_type": "view", "event_id": "seed:1"}
                    ],
                    "atomic": True,
                },
            ),
        ],
    )
    def test_refusals(
        self, client: TestClient, stub: RankingStub, name: str, body: dict[str, Any]
    ) -> None:
        response = client.post(PATHS[name], json=body)
        found = getattr(stub, name)
        if response.status_code == 200:  # a text of unknown words is a text
            assert found(message_of(name, body)).items
            return
        assert response.status_code == 422
        expected = response.json()["detail"]
        error = refusal(found, message_of(name, body))
        assert error.code() is Code.INVALID_ARGUMENT
        first = expected[0]
        prefix = f"{first['field']}: " if first["field"] != "body" else ""
        assert error.details() == prefix + first["msg"]
        told = error_of(error)
        assert (told.code, told.message) == (3, error.details())
        (packed,) = told.details
        violations = error_details_pb2.BadRequest()
        assert packed.Unpack(violations)
        assert [
            {"field": each.field, "msg": each.description, "type": each.reason.lower()}
            for each in violations.field_violations
        ] == [{key: each[key] for key in ("field", "msg", "type")} for each in expected]
