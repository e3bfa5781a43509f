"""What a user takes back or does not want to see counts from the next answer on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from bundles import THINGS, item_id, make_items, version_in
from fastapi.testclient import TestClient
from http_calls import ids, post
from services import make_service

from recsys.config import Recipe
from recsys.schema import Col
from serve.core.service import Service
from serve.http.routes import build_http

CATEGORY = dict(make_items().select(Col.item, Col.category).rows())


def send(client: TestClient, event_type: str, item: str, user: str = "u") -> None:
    event = {"user_id": user, "item_id": item, "event_type": event_type}
    assert post(client, "/events", event)["stored"] == 1


def listed(client: TestClient, user: str = "u", **more: Any) -> list[str]:
    return ids(post(client, "/recommend", {"user_id": user, "k": 50, **more}))


def test_a_disliked_item_is_not_shown_to_its_user(client: TestClient) -> None:
    first, second, *_ = before = listed(client)
    send(client, "dislike", first)
    assert listed(client) == [*before[1:], *listed(client)[-1:]]
    assert listed(client, "v") == before
    ranked = post(client, "/rank", {"user_id": "u", "candidates": [first, second]})
    assert [item["candidate"] for item in ranked["items"]] == [1]
    assert post(client, "/recommend", {"user_id": "u"})["basis"] == "popularity"
    send(client, "add_to_cart", first)
    assert len(post(client, "/rank", {"user_id": "u", "candidates": [first]})["items"]) == 1


def test_a_disliked_category_is_not_shown(client: TestClient) -> None:
    first = listed(client)[0]
    send(client, "dislike_category", first)
    shown = listed(client)
    assert len(shown) == 50 and {CATEGORY[item] for item in shown} == set(THINGS) - {
        CATEGORY[first]
    }
    assert listed(client, filters={"category": [CATEGORY[first]]}) == []
    texts = [{"title": "a", "category": CATEGORY[first]}, {"title": "b", "category": "new"}]
    asked = {
        "user_id": "u",
        "candidates": [first, *texts, {"title": "c"}, shown[0]],
        "explain": True,
    }
    ranked = post(client, "/rank", asked)
    assert {item["candidate"] for item in ranked["items"]} == {2, 3, 4}


def test_a_session_takes_back_too(client: TestClient) -> None:
    def answer(*events: tuple[int, str]) -> dict[str, Any]:
        history = [{"item_id": item_id(row), "event_type": name} for row, name in events]
        return post(client, "/recommend", {"history": history, "k": 50})

    cart = answer((3, "view"), (5, "add_to_cart"))
    assert cart["items"] != answer((3, "view"))["items"]
    left = answer((3, "view"), (5, "add_to_cart"), (5, "remove_from_cart"))
    assert ids(left) == ids(answer((3, "view")))
    assert answer((5, "add_to_cart"), (5, "remove_from_cart"))["basis"] == "popularity"
    first = ids(cart)[0]
    history = [{"item_id": item_id(3)}, {"item_id": first, "event_type": "dislike"}]
    assert first not in ids(post(client, "/recommend", {"history": history, "k": 50}))


def test_what_was_returned_is_no_longer_owned(client: TestClient) -> None:
    send(client, "view", item_id(3))
    before, item = listed(client, exclude_owned=True), item_id(9)
    send(client, "purchase", item)
    assert item not in listed(client, exclude_owned=True)
    ranked = {"user_id": "u", "candidates": [item, item_id(3)]}
    owned = post(client, "/rank", ranked)["items"]
    send(client, "return", item)
    assert set(listed(client, exclude_owned=True)) == set(before)
    assert post(client, "/rank", ranked)["items"] != owned


@pytest.mark.parametrize("serve_settings", [{"max_k": 50, "state": {"backend": "sqlite"}}])
def test_it_is_known_after_a_restart_and_erased_with_the_user(
    client: TestClient, service: Service, recipe: Recipe, bundle: Path
) -> None:
    first = listed(client)[0]
    send(client, "dislike", first)
    service.close()
    again = make_service(recipe)
    asyncio.run(again.load(bundle, version_in(bundle)))
    with TestClient(build_http(again)) as restarted:
        assert first not in listed(restarted)
        post(restarted, "/users/erase", {"user_id": "u"})
        assert listed(restarted)[0] == first
