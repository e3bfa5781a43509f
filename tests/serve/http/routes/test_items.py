"""/items: items that join the catalogue while it is served, and news of those it holds."""

from __future__ import annotations

from typing import Any

import pytest
from bundles import SOLD_OUT, item_id
from fastapi.testclient import TestClient
from http_calls import LAMP, ids, post

from serve.schemas.requests import MAX_NEW_ITEMS


def tents(client: TestClient, **request: Any) -> list[str]:
    """What is recommended of a category that no item of the bundle has."""
    body = {"user_id": "nobody", "filters": {"category": ["tent"]}, **request}
    return ids(post(client, "/recommend", body))


class TestAdding:
    def test_an_added_item_is_recommended_and_ranked_at_once(self, client: TestClient) -> None:
        assert tents(client) == []
        answer = post(client, "/items", LAMP)
        assert (answer["received"], answer["stored"], answer["known_items"]) == (1, 1, [])
        assert tents(client) == ["new-lamp"]
        ranked = post(client, "/rank", {"user_id": "x", "candidates": [item_id(2), "new-lamp"]})
        assert {item["title"] for item in ranked["items"]} >= {"green lamp"}
        scores = {item["item_id"]: item["score"] for item in ranked["items"]}
        as_text = {name: LAMP[name] for name in ("title", "brand", "category", "price")}
        text = post(client, "/rank", {"user_id": "x", "candidates": [as_text]})["items"][0]
        assert scores["new-lamp"] == pytest.approx(text["score"], abs=1e-5)
        assert client.get("/model").json()["num_added"] == 1
        assert client.get("/model").json()["num_items"] == 300

    def test_filters_and_availability_hold(self, client: TestClient) -> None:
        gone = {**LAMP, "item_id": "gone", "available": False}
        free = {"item_id": "free", "title": "a tent", "category": "tent"}
        post(client, "/items", {"items": [LAMP, gone, free]})
        assert sorted(tents(client)) == ["free", "new-lamp"]
        assert tents(client, filters={"category": ["tent"], "brand": ["acme"]}) == ["new-lamp"]
        assert tents(client, filters={"category": ["tent"], "max_price": 8.0}) == []
        assert tents(client, exclude=["new-lamp"]) == ["free"]
        assert tents(client, max_per_category=1) in (["free"], ["new-lamp"])

    def test_sent_again_what_is_given_is_changed(self, client: TestClient) -> None:
        assert post(client, "/items", LAMP)["stored"] == 1
        assert post(client, "/items", LAMP)["stored"] == 0
        changed = {"item_id": "new-lamp", "title": "a blue lamp"}
        assert post(client, "/items", changed)["stored"] == 1
        (found,) = post(client, "/recommend", {"user_id": "x", "filters": {"brand": ["acme"],
                                                                           "category": ["tent"]}})[
            "items"
        ]  # fmt: skip
        assert found["title"] == "a blue lamp"
        assert client.get("/model").json()["num_added"] == 1
        gone = {"item_id": "new-lamp", "available": False}
        assert post(client, "/items", gone)["stored"] == 1
        assert tents(client) == []
        assert post(client, "/items", {**gone, "available": None})["stored"] == 1
        assert tents(client) == ["new-lamp"]

    def test_taken_away_it_is_gone(self, client: TestClient) -> None:
        strange = "a/b c?"
        post(client, "/items", {"items": [LAMP, {**LAMP, "item_id": strange}]})
        answer = client.delete("/items/a%2Fb%20c%3F")
        assert answer.json()["removed"] is True
        assert tents(client) == ["new-lamp"]
        assert client.delete("/items/a%2Fb%20c%3F").json()["removed"] is False
        assert client.delete(f"/items/{item_id(3)}").json()["removed"] is False
        answer = post(client, "/rank", {"user_id": "x", "candidates": [strange, item_id(1)]})
        assert (ids(answer), answer["unknown_items"]) == ([item_id(1)], [strange])

    @pytest.mark.parametrize(
        ("body", "at"),
        [
            ({"title": "no id"}, "item_id"),
            ({"item_id": "x", "title": " "}, "title"),
            ({"item_id": "x", "title": "a", "price": -1}, "price"),
            ({"item_id": "x", "title": "a", "colour": "red"}, "colour"),
            ({"item_id": "x\n", "title": "a"}, "item_id"),
            ({"items": []}, "items"),
            ({"item_id": "x", "title": "a", "available": "no"}, "available"),
            ({"items": [LAMP, {"item_id": "y"}]}, "items[1]"),
            ({"items": [LAMP, {"item_id": "y", "price": 3.0}]}, "items[1]"),
            ({"items": [LAMP, LAMP]}, "items[1].item_id"),
            ({"items": [{**LAMP, "item_id": str(n)} for n in range(MAX_NEW_ITEMS + 1)]}, "items"),
        ],
    )
    def test_refusals_name_the_field_and_add_nothing(
        self, client: TestClient, body: Any, at: str
    ) -> None:
        answer = post(client, "/items", body, 422)
        assert [problem["field"] for problem in answer["detail"]] == [at]
        assert client.get("/model").json()["num_added"] == 0


class TestOfTheBundle:
    """What is said of an item that the catalogue holds: known at once, and told."""

    def known(self, client: TestClient, name: str, status: int = 200) -> dict[str, Any]:
        answer = client.get(f"/items/{name}")
        assert answer.status_code == status, answer.text
        return dict(answer.json())

    def test_what_is_sold_out_is_shown_no_more(self, client: TestClient) -> None:
        best = ids(post(client, "/recommend", {"user_id": "x", "k": 3}))
        answer = post(client, "/items", {"item_id": best[0], "available": False})
        assert (answer["stored"], answer["known_items"]) == (1, [best[0]])
        assert ids(post(client, "/recommend", {"user_id": "x", "k": 2})) == best[1:]
        assert client.get("/model").json()["num_added"] == 0
        assert self.known(client, best[0])["available"] is False
        assert self.known(client, best[0])["updated"] == ["available"]
        assert client.delete(f"/items/{best[0]}").json()["removed"] is True
        assert ids(post(client, "/recommend", {"user_id": "x", "k": 3})) == best

    def test_what_is_there_again_is_shown_again(self, client: TestClient) -> None:
        everything = {"user_id": "x", "k": 50, "filters": {"category": [self.known(
            client, SOLD_OUT)["category"]]}}  # fmt: skip
        assert SOLD_OUT not in ids(post(client, "/recommend", {**everything, "exclude": []}))
        scores = post(client, "/rank", {"user_id": "x", "candidates": [SOLD_OUT]})["items"]
        post(client, "/items", {"item_id": SOLD_OUT, "available": True})
        filters = {"min_price": 300.0, "max_price": 300.0}
        assert ids(post(client, "/recommend", {"user_id": "x", "filters": filters})) == [SOLD_OUT]
        after = post(client, "/rank", {"user_id": "x", "candidates": [SOLD_OUT]})["items"]
        assert after == scores, "what a model learned of it stays"

    def test_price_title_and_attributes_are_told_and_filtered_by(self, client: TestClient) -> None:
        name = item_id(3)
        before = self.known(client, name)
        assert (before["in_bundle"], before["updated"], before["price"]) == (True, [], 4.0)
        said = {"title": "the last tent", "category": "tent", "brand": "umbra", "price": 0.5}
        post(client, "/items", {"item_id": name, **said})
        assert tents(client) == [name]
        (found,) = post(
            client, "/recommend",
            {"user_id": "x", "filters": {"brand": ["umbra"], "max_price": 1.0}},
        )["items"]  # fmt: skip
        assert found["title"] == "the last tent"
        now = self.known(client, name)
        assert {field: now[field] for field in said} == said
        assert now["updated"] == sorted(said)
        post(client, "/items", {"item_id": name, "price": None, "brand": None})
        assert self.known(client, name)["price"] == 4.0
        assert self.known(client, name)["updated"] == ["category", "title"]
        client.delete(f"/items/{name}")
        assert self.known(client, name) | {"request_id": ""} == before | {"request_id": ""}

    def test_an_added_item_is_told_and_no_item_is_not(self, client: TestClient) -> None:
        post(client, "/items", LAMP)
        told = self.known(client, "new-lamp")
        assert {field: told[field] for field in LAMP} == LAMP
        assert (told["in_bundle"], told["available"], told["description"]) == (False, True, None)
        self.known(client, "nobody-s", 404)

    def test_both_kinds_at_once(self, client: TestClient) -> None:
        mine = {**LAMP, "item_id": item_id(3)}
        answer = post(client, "/items", {"items": [mine, LAMP]})
        assert (answer["stored"], answer["known_items"]) == (2, [item_id(3)])
        assert sorted(tents(client)) == [item_id(3), "new-lamp"]
        assert post(client, "/items", mine)["stored"] == 0


class TestInterest:
    """What a visitor does with an added item counts like anything else."""

    def test_a_session_that_views_one_is_read(self, client: TestClient) -> None:
        post(client, "/items", LAMP)
        seen = [{"item_id": "new-lamp"}]
        answer = post(client, "/recommend", {"history": seen, "k": 50, "explain": True})
        assert (answer["basis"], answer["unknown_items"]) == ("session", [])
        assert ids(answer) != ids(post(client, "/recommend", {"history": [], "k": 50}))
        # What speaks for an item of the user's own: the second stage knows it as that.
        (mine,) = post(client, "/rank", {"history": seen, "candidates": ["new-lamp"],
                                         "explain": True})["items"]  # fmt: skip
        assert mine["explanation"]["parts"]["history"] != 0

    def test_a_users_event_is_known_and_explained(self, client: TestClient) -> None:
        event = {"user_id": "u", "item_id": "new-lamp", "event_type": "purchase"}
        assert post(client, "/events", event)["unknown_items"] == ["new-lamp"]
        assert post(client, "/recommend", {"user_id": "u"})["basis"] == "popularity"
        post(client, "/items", LAMP)
        answer = post(client, "/recommend", {"user_id": "u", "k": 50, "explain": True})
        assert answer["basis"] == "personal"
        named = [r["item_id"] for item in answer["items"] for r in item["explanation"]["reasons"]]
        assert set(named) == {"new-lamp"}
        assert post(client, "/events", {**event, "event_type": "view"})["unknown_items"] == []
        assert tents(client, user_id="u", exclude_owned=True) == []
