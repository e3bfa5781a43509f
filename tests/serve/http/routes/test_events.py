"""/events: stored, repeated, ignored, refused, and kept for the next model."""

from __future__ import annotations

import datetime as dt
import json
from typing import ClassVar

import polars as pl
import pytest
from bundles import item_id
from fastapi.testclient import TestClient
from http_calls import post, refused_at

from ray_jobs import compact
from recsys.artifacts.run import Run
from recsys.config import Recipe
from recsys.data.feedback import Feedback, finished
from recsys.schema import Col
from serve.core.service import Service


def test_the_next_answer_knows_of_an_event(client: TestClient) -> None:
    before = post(client, "/recommend", {"user_id": "u1"})
    event = {"user_id": "u1", "item_id": item_id(77), "event_type": "purchase"}
    stored = post(client, "/events", event)
    assert (stored["received"], stored["stored"], stored["ignored"]) == (1, 1, 0)
    after = post(client, "/recommend", {"user_id": "u1"})
    assert (before["basis"], after["basis"]) == ("popularity", "personal")
    assert after["items"] != before["items"]
    assert post(client, "/recommend", {"user_id": "u2"})["items"] == before["items"]


def test_an_event_sent_again_counts_once(client: TestClient) -> None:
    event = {"event_id": "e1", "user_id": "u", "item_id": item_id(1), "event_type": "buy"}
    assert post(client, "/events", {"events": [event, event]})["stored"] == 1
    assert post(client, "/events", event)["stored"] == 0


def test_an_event_of_a_type_that_is_left_out_is_ignored(client: TestClient) -> None:
    event = {"user_id": "u", "item_id": item_id(1), "event_type": "ping"}
    answer = post(client, "/events", event)
    assert (answer["stored"], answer["ignored"]) == (0, 1)


def test_an_event_of_an_unknown_item_is_kept_and_told(client: TestClient) -> None:
    event = {"user_id": "u", "item_id": "next season", "event_type": "view"}
    answer = post(client, "/events", event)
    assert (answer["stored"], answer["unknown_items"]) == (1, ["next season"])
    assert post(client, "/recommend", {"user_id": "u"})["basis"] == "popularity"


def test_a_clock_that_runs_ahead_a_little_is_borne(client: TestClient) -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
    event = {"user_id": "u", "item_id": item_id(1), "event_type": "view", "timestamp": f"{soon}"}
    post(client, "/events", event)
    assert post(client, "/recommend", {"user_id": "u"})["basis"] == "personal"


@pytest.mark.parametrize("many", [False, True])
def test_an_event_of_the_future_is_refused(client: TestClient, many: bool) -> None:
    future = (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=400)).isoformat()
    event = {"user_id": "u", "item_id": item_id(1), "event_type": "view", "timestamp": future}
    good = {**event, "timestamp": None}
    body = {"events": [good, event], "atomic": True} if many else event
    field = "events[1].timestamp" if many else "timestamp"
    assert refused_at(post(client, "/events", body, 422)) == [field]
    assert post(client, "/recommend", {"user_id": "u"})["basis"] == "popularity"  # all or none
    history = {"history": [{"item_id": item_id(1), "timestamp": future}]}
    assert refused_at(post(client, "/recommend", history, 422)) == ["history[0].timestamp"]


def test_an_integer_is_an_id_as_it_is_in_the_log(client: TestClient) -> None:
    event = {"user_id": 7, "item_id": item_id(1), "event_type": "buy", "event_id": 1}
    assert post(client, "/events", event)["stored"] == 1
    assert post(client, "/recommend", {"user_id": "7"})["basis"] == "personal"
    assert post(client, "/recommend", {"user_id": 7.0})["basis"] == "personal"
    answer = post(client, "/rank", {"user_id": 7, "candidates": [12, item_id(1)]})
    assert answer["unknown_items"] == ["12"]
    for wrong in (7.5, True, None, [7], 1e300, "a\tb"):
        refused = post(client, "/events", {**event, "user_id": wrong}, 422)
        assert refused_at(refused) == ["user_id"]


class TestEventIds:
    LINE: ClassVar = {"user_id": "u", "event_type": "buy", "event_id": "order-17"}

    def test_another_event_under_a_held_id_is_a_conflict(self, client: TestClient) -> None:
        first, second = ({**self.LINE, "item_id": item_id(row)} for row in (1, 2))
        assert post(client, "/events", first)["stored"] == 1
        again = post(client, "/events", first)
        assert (again["stored"], again["repeated"]) == (0, [{"event": 0, "event_id": "order-17"}])
        assert refused_at(post(client, "/events", second, 409)) == ["event_id"]

    def test_an_order_s_number_on_each_of_its_lines_is_told(self, client: TestClient) -> None:
        lines = [{**self.LINE, "item_id": item_id(row)} for row in (1, 2, 1)]
        answer = post(client, "/events", {"events": lines})
        assert (answer["stored"], [each["event_id"] for each in answer["repeated"]]) == (
            1,
            ["order-17"],
        )
        assert answer["conflicts"] == [{"event": 1, "event_id": "order-17", "status": 409}]


def test_what_else_an_event_tells_is_kept_for_the_next_model(
    client: TestClient, service: Service, recipe: Recipe
) -> None:
    told = {
        "session_id": "visit-of-ann", "request_id": "0a.B-_", "position": 3, "dwell_ms": 1200,
        "price": 9.5, "quantity": 2.0, "value": -19.0, "placement": "home/top",
        "context": {"b": 2.0, "a": "x", "c": True},
    }  # fmt: skip
    event = {"user_id": "ann", "item_id": item_id(1), "event_type": "buy"}
    assert post(client, "/events", {"events": [{**event, **told}, event]})["stored"] == 2
    feedback = Feedback.of(recipe.root)
    compact.execute(Run.open(recipe))
    rows = pl.concat([pl.read_parquet(path) for path in finished(feedback.events)])
    kept = rows.sort(Col.position, nulls_last=True).to_dicts()
    session = kept[0].pop(Col.session)
    assert json.loads(kept[0][Col.context]) == told["context"]
    told["context"] = '{"a":"x","b":2,"c":true}'
    assert {name: kept[0][name] for name in told if name != "session_id"} == {
        name: value for name, value in told.items() if name != "session_id"
    }
    assert len(session) == 32 and "ann" not in session
    assert all(kept[1][name] is None for name in told)
    most = {
        "session_id": "s" * 256, "request_id": "r" * 64, "position": 2**31 - 1,
        "dwell_ms": 2**31 - 1, "price": 1e12, "quantity": -1e9, "value": 1e12,
        "placement": "p" * 64, "context": {f"{place}": "v" * 256 for place in range(16)},
    }  # fmt: skip
    assert post(client, "/events", {**event, **most})["stored"] == 1
    compact.execute(Run.open(recipe))
    for name, wrong in (
        ("position", 0), ("position", 2**31), ("dwell_ms", -1), ("dwell_ms", 2**31),
        ("price", -1.0), ("request_id", "a b"), ("quantity", "1"), ("value", "1"),
        ("placement", "-"), ("placement", "p" * 65),
    ):  # fmt: skip
        assert refused_at(post(client, "/events", {**event, name: wrong}, 422)) == [name]
    for wrong, field in (
        ({"n" * 65: 1}, "context"), ({"a b": 1}, "context"), ({"a": None}, "context.a"),
        ({"a": [1]}, "context.a"), ({"a": "v" * 257}, "context.a"), (5, "context"),
        ({f"{place}": place for place in range(17)}, "context"),
    ):  # fmt: skip
        (named,) = refused_at(post(client, "/events", {**event, "context": wrong}, 422))
        assert named.startswith(field)
