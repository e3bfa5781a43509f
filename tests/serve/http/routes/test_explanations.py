"""What /recommend and /rank tell of an item when they are asked why."""

from __future__ import annotations

import pytest
from bundles import item_id, make_items
from fastapi.testclient import TestClient
from http_calls import post

from recsys.schema import Col


class TestExplanations:
    HISTORY = [
        {"item_id": item_id(row), "event_type": kind, "timestamp": f"2026-05-0{day}T10:00:00Z"}
        for day, (row, kind) in enumerate(
            [(3, "purchase"), (40, "click"), (3, "purchase"), (77, "view")], start=1
        )
    ]

    def test_none_unless_asked_for(self, client: TestClient) -> None:
        answer = post(client, "/recommend", {"history": self.HISTORY})
        assert all("explanation" not in item for item in answer["items"])

    def test_without_the_named_item_the_score_is_lower(self, client: TestClient) -> None:
        body = {"history": self.HISTORY, "k": 20, "explain": True}
        answer = post(client, "/recommend", body)
        named = 0
        for item in answer["items"]:
            why = item["explanation"]
            assert sum(why["parts"].values()) == pytest.approx(item["score"], abs=1e-3)
            for reason in why["reasons"]:
                less = [event for event in self.HISTORY if event["item_id"] != reason["item_id"]]
                asked = {"history": less, "candidates": [item["item_id"]]}
                (again,) = post(client, "/rank", asked)["items"]
                # The clock goes on between the two requests.
                assert item["score"] - again["score"] == pytest.approx(reason["gain"], abs=1e-2)
                named += reason["gain"] > 0.02
        assert named > 5

    def test_a_sentence_says_what_was_done(self, client: TestClient) -> None:
        body = {"history": self.HISTORY, "k": 50, "explain": True}
        items = post(client, "/recommend", body)["items"]
        sentences = [item["explanation"]["sentence"] for item in items]
        titles = dict(make_items().select(Col.item, Col.title).rows())
        assert f"You bought {titles[item_id(3)]} 2 times, last on 2026-05-03." in sentences
        assert f"You clicked {titles[item_id(40)]} once, last on 2026-05-02." in sentences
        nobody = post(client, "/recommend", {"user_id": "nobody", "explain": True})["items"]
        assert {item["explanation"]["sentence"] for item in nobody} == {"Popular with others."}

    def test_candidates_old_and_new(self, client: TestClient) -> None:
        new = {"title": "a new red cup", "price": 5}
        body = {"history": self.HISTORY, "candidates": [item_id(3), new, item_id(9)], "k": 3}
        plain = post(client, "/rank", body)["items"]
        told = post(client, "/rank", body | {"explain": True})["items"]
        assert [item["candidate"] for item in told] == [item["candidate"] for item in plain]
        for item in told:
            parts = item["explanation"]["parts"]
            assert sum(parts.values()) == pytest.approx(item["score"], abs=1e-3)
            if item["candidate"] == 1:
                assert parts["history"] == 0
            reasons = item["explanation"]["reasons"]
            if item["candidate"] == 0 and reasons and reasons[0]["item_id"] == item_id(3):
                assert item["explanation"]["sentence"].startswith("You bought it 2 times")
