"""/events with several: a verdict each, all or none, and clocks of senders that are off."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from bundles import item_id
from fastapi.testclient import TestClient
from http_calls import post, refused_at
from services import Clock

from serve.core.service import Service

GOOD = {"user_id": "u", "item_id": item_id(1), "event_type": "view"}
NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


class TestVerdicts:
    def test_what_is_wrong_is_refused_by_itself(self, client: TestClient) -> None:
        lines = [
            GOOD,
            {**GOOD, "event_type": "stare"},
            {**GOOD, "event_id": "e", "timestamp": "2026-01-01T00:00:00Z"},
            {**GOOD, "event_id": "e", "timestamp": "2026-01-01T00:00:00Z"},
            {**GOOD, "event_id": "e", "item_id": "other"},
            {**GOOD, "event_type": "ping"},
            {**GOOD, "timestamp": "2999-01-01T00:00:00Z"},
            {**GOOD, "dwell_ms": -1, "item_id": "never told of"},
            7,
            {**GOOD, "item_id": "gone"},
        ]
        answer = post(client, "/events", {"events": lines})
        told = [(each["status"], each.get("field")) for each in answer["results"]]
        assert told == [
            ("stored", None), ("refused", "event_type"), ("stored", None), ("duplicate", None),
            ("refused", "event_id"), ("ignored", None), ("refused", "timestamp"),
            ("refused", "dwell_ms"), ("refused", None), ("stored", None),
        ]  # fmt: skip
        assert all(
            bool(each.get("message")) == (each["status"] == "refused") for each in answer["results"]
        )
        counts = {name: answer[name] for name in ("received", "stored", "refused", "ignored")}
        assert counts == {"received": 10, "stored": 3, "refused": 5, "ignored": 1}
        assert [each["event"] for each in answer["conflicts"]] == [4]
        assert answer["unknown_items"] == ["gone"]
        assert post(client, "/recommend", {"user_id": "u"})["basis"] == "personal"

    def test_a_batch_of_wrong_ones_stores_none(self, client: TestClient) -> None:
        answer = post(client, "/events", {"events": [{**GOOD, "user_id": ""}, "x"]})
        assert (answer["stored"], answer["refused"]) == (0, 2)

    def test_an_event_older_than_its_user_s_erasure(self, client: TestClient) -> None:
        post(client, "/users/erase", {"user_id": "u"})
        old = {**GOOD, "timestamp": "2026-01-01T00:00:00Z"}
        answer = post(client, "/events", {"events": [old]})
        assert answer["older_than_erasure"] == [0]
        assert answer["results"][0]["field"] == "timestamp"

    @pytest.mark.parametrize(
        ("wrong", "field"),
        [({"event_type": "stare"}, "event_type"), ({"value": "1"}, "value")],
    )
    def test_atomic_stores_all_or_none(
        self, client: TestClient, wrong: dict[str, Any], field: str
    ) -> None:
        batch = {"events": [GOOD, {**GOOD, **wrong}], "atomic": True}
        assert refused_at(post(client, "/events", batch, 422)) == [f"events[1].{field}"]
        assert post(client, "/recommend", {"user_id": "u"})["basis"] == "popularity"
        assert refused_at(post(client, "/events", {**GOOD, **wrong}, 422)) == [field]

    @pytest.mark.parametrize(
        ("beside", "field"),
        [
            ({"atomic": "yes"}, "atomic"), ({"sent_at": "now"}, "sent_at"), ({"x": 1}, "x"),
            ({"events": []}, "events"), ({"events": [GOOD] * 1001}, "events"),
        ],
    )  # fmt: skip
    def test_a_batch_that_is_none_is_refused(
        self, client: TestClient, beside: dict[str, Any], field: str
    ) -> None:
        assert refused_at(post(client, "/events", {"events": [GOOD], **beside}, 422)) == [field]

    @pytest.mark.parametrize("name", ["\\ud800", "n" * 5000])
    def test_a_name_that_no_answer_could_repeat(self, client: TestClient, name: str) -> None:
        good = json.dumps(GOOD)
        body = f'{{"events": [{good}, {good[:-1]}, "{name}": 1}}]}}'
        answer = client.post("/events", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 200 and len(answer.content) < 1000
        assert [each["status"] for each in answer.json()["results"]] == ["stored", "refused"]

    def test_an_event_of_far_too_many_fields_is_told_so(self, client: TestClient) -> None:
        far = {f"field-{number}": 0 for number in range(1000)}
        refused = post(client, "/events", {"events": [GOOD, {**GOOD, **far}, 7]})["results"][1:]
        assert [each["message"] for each in refused] == [
            "far more fields than are known here", "an event is an object with fields",
        ]  # fmt: skip

    @pytest.mark.parametrize("filler", ["0", "{}"])
    def test_a_body_full_of_events_is_refused_without_looking_at_each(
        self, client: TestClient, filler: str
    ) -> None:
        body = f'{{"events": [{",".join([filler] * 300_000)}]}}'
        answer = client.post("/events", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["field"].startswith("events")


class TestClocks:
    @pytest.fixture(autouse=True)
    def _now(self, clock: Clock) -> None:
        clock.now = int(NOW.timestamp()) * 1_000_000

    @pytest.mark.parametrize("hours", [-30, -2, 2, 5000])
    @pytest.mark.parametrize("many", [False, True])
    def test_a_clock_that_is_hours_off_is_corrected(
        self, client: TestClient, service: Service, hours: float, many: bool
    ) -> None:
        theirs = NOW + dt.timedelta(hours=hours)
        seen = theirs - dt.timedelta(seconds=90)
        event = {**GOOD, "timestamp": seen.isoformat(), "event_id": "e"}
        sent = {"sent_at": theirs.isoformat()}
        body = {"events": [event], **sent} if many else {**event, **sent}
        assert post(client, "/events", body)["stored"] == 1
        assert times(service) == [NOW - dt.timedelta(seconds=90)]

    @pytest.mark.parametrize("off_s", [-60, -59, 0, 60])
    def test_the_way_of_a_request_is_no_skew(
        self, client: TestClient, service: Service, off_s: int
    ) -> None:
        seen = NOW - dt.timedelta(minutes=5)
        sent = NOW + dt.timedelta(seconds=off_s)
        event = {**GOOD, "timestamp": seen.isoformat(), "sent_at": sent.isoformat()}
        assert post(client, "/events", event)["stored"] == 1
        assert times(service) == [seen]

    def test_an_event_s_own_goes_before_the_batch_s(
        self, client: TestClient, service: Service
    ) -> None:
        theirs = NOW + dt.timedelta(hours=3)
        event = {**GOOD, "timestamp": theirs.isoformat(), "sent_at": theirs.isoformat()}
        post(client, "/events", {"events": [event], "sent_at": NOW.isoformat()})
        assert times(service) == [NOW]

    def test_sent_again_it_is_the_same_event(self, client: TestClient, clock: Clock) -> None:
        theirs = NOW + dt.timedelta(hours=3)
        event = {**GOOD, "timestamp": theirs.isoformat(), "event_id": "e"}
        for seconds, became in ((0, "stored"), (7, "duplicate")):
            clock.now = int(NOW.timestamp() + seconds) * 1_000_000
            batch = {"events": [event], "sent_at": (theirs + dt.timedelta(seconds=1)).isoformat()}
            assert post(client, "/events", batch)["results"] == [{"status": became}]

    def test_what_stays_in_the_future_or_falls_before_1970_is_refused(
        self, client: TestClient
    ) -> None:
        for sent, seen in (
            (NOW, NOW + dt.timedelta(hours=1)),
            (NOW + dt.timedelta(days=365 * 40), NOW - dt.timedelta(days=365 * 30)),
        ):
            event = {**GOOD, "timestamp": seen.isoformat(), "sent_at": sent.isoformat()}
            assert refused_at(post(client, "/events", event, 422)) == ["timestamp"]


def times(service: Service) -> list[dt.datetime]:
    """Of the stored events of user `u`."""
    held = service._users.history("u")
    return [dt.datetime.fromtimestamp(each.timestamp / 1e6, dt.UTC) for each in held]
