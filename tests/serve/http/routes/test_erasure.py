"""/users: whoever is erased is unknown, and nobody in their place."""

from __future__ import annotations

import datetime as dt
from urllib.parse import quote

import pytest
from bundles import item_id
from fastapi.testclient import TestClient
from http_calls import post, refused_at

from serve.core.service import Service


class TestErasure:
    def test_nothing_of_before_is_known_and_what_comes_after_is(
        self, client: TestClient, service: Service
    ) -> None:
        event = {"event_id": "e1", "item_id": item_id(7), "event_type": "buy"}
        odd = "a/b %ä"
        sent = [event | {"user_id": user} for user in ("u", odd)]
        for each in sent:
            each["timestamp"] = "2026-05-01T00:00:00Z"
        assert post(client, "/events", {"events": sent})["stored"] == 2
        nobody = client.delete("/users/nobody").json()
        assert (nobody["erased"], nobody["held"]) == (0, False)
        for erased in (
            client.delete(f"/users/{quote(odd, safe='')}"),
            client.post("/users/erase", json={"user_id": "u"}),
        ):
            assert erased.status_code == 200
            assert (erased.json()["erased"], erased.json()["held"]) == (1, True)
        for user in ("u", odd):
            assert post(client, "/recommend", {"user_id": user})["basis"] == "popularity"
        # A sender that sends once more what it sent before does not bring the user back.
        again = post(client, "/events", {"events": sent})
        assert (again["stored"], again["older_than_erasure"]) == (0, [0, 1])
        assert (again["repeated"], again["conflicts"]) == ([], [])
        assert post(client, "/events", event | {"event_id": "e2", "user_id": "u"})["stored"] == 1
        assert post(client, "/recommend", {"user_id": "u"})["basis"] == "personal"

    @pytest.mark.parametrize(
        ("user", "at"),
        [
            ("", "user_id"), ("x" * 257, "user_id"), ("x77/", "user_id"), ("a/b", "user_id"),
            ("%ff", "user_id"), ("%00", "path"), ("nlcheck%0A", "path"), ("a%0Ab", "path"),
            ("%0A", "path"), ("%09x", "path"), ("%7F", "path"),
        ],
    )  # fmt: skip
    def test_an_id_that_no_user_has_is_refused(
        self, client: TestClient, user: str, at: str
    ) -> None:
        """And nobody is erased in its place."""
        others = ["nlcheck", "x77", "a", "x"]
        for other in others:
            post(client, "/events", {"user_id": other, "item_id": item_id(1), "event_type": "buy"})
        answer = client.delete(f"/users/{user}")
        assert answer.status_code == 422, answer.text
        assert refused_at(answer.json()) == [at]
        for other in others:
            assert post(client, "/recommend", {"user_id": other})["basis"] == "personal"

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    def test_so_it_is_with_items(self, client: TestClient, method: str) -> None:
        for name in (f"{item_id(1)}%0A", f"{item_id(1)}/", f"{item_id(1)}/x"):
            assert client.request(method, f"/items/{name}").status_code == 422, name

    def test_a_new_history_is_kept_whatever_a_clock_had_said(
        self, client: TestClient, service: Service
    ) -> None:
        ahead = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=4)
        first = {"user_id": "u", "item_id": item_id(1), "event_type": "buy", "event_id": "1"}
        post(client, "/events", {**first, "timestamp": ahead.isoformat()})
        client.delete("/users/u")
        assert post(client, "/recommend", {"user_id": "u"})["basis"] == "popularity"
        again = post(client, "/events", {**first, "timestamp": ahead.isoformat()})
        assert (again["stored"], again["older_than_erasure"]) == (0, [0])
        assert post(client, "/events", {**first, "event_id": "2"})["stored"] == 1
        assert post(client, "/recommend", {"user_id": "u"})["basis"] == "personal"
