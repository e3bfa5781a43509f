"""Items that join the catalogue while it is served."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import SOLD_OUT, item_id, make_bundle, make_items, make_recipe, version_in
from fastapi.testclient import TestClient

from recsys.config import Recipe
from recsys.schema import Col
from serve.core.service import Service
from serve.ray.text_encoder import TextEncoder
from serve.schemas.problems import Refused
from serve.schemas.requests import MAX_NEW_ITEMS, ItemUpdate, RecommendRequest
from serve.settings import Settings

#: More than the catalogue holds: the whole of it comes back.
ALL = {"user_id": "nobody", "k": 50}
LAMP = {
    "item_id": "new-lamp", "title": "green lamp", "brand": "acme", "category": "tent", "price": 9.0,
}  # fmt: skip


def post(client: TestClient, path: str, body: Any, status: int = 200) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    return dict(response.json())


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


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


def make_service(recipe: Recipe, calls: list[str] | None = None) -> Service:
    encoder = TextEncoder()

    async def encode(folder: Path, version: str, items: list[Any]) -> np.ndarray:
        if calls is not None:
            calls.extend(item["title"] for item in items)
        return await encoder.encode(str(folder), version, items)

    return Service(Settings.of(recipe), encode)


async def tents_of(service: Service) -> list[tuple[str, float]]:
    request = RecommendRequest(user_id="x", k=50, filters={"category": ["tent"]})  # type: ignore[arg-type]
    answer = json.loads(await service.recommend(request))
    return [(item["item_id"], item["score"]) for item in answer["items"]]


async def add(service: Service, **fields: Any) -> int:
    item = ItemUpdate(**{**LAMP, **fields})
    return int(json.loads(await service.update_items([item], single=True))["stored"])


def test_they_outlive_a_restart_and_are_not_encoded_again(recipe: Recipe, bundle: Path) -> None:
    async def run() -> None:
        first = make_service(recipe)
        await first.load(bundle, version_in(bundle))
        await add(first)
        calls: list[str] = []
        second = make_service(recipe, calls)
        await second.load(bundle, version_in(bundle))
        assert await tents_of(second) == await tents_of(first) != []
        assert calls == ["a new item"]  # the trial of a bundle that is loaded

    asyncio.run(run())


def test_what_is_said_of_an_item_outlives_restarts_and_bundles(
    recipe: Recipe, bundle: Path, other_bundle: Path
) -> None:
    async def run() -> None:
        first, calls = make_service(recipe), []
        await first.load(bundle, version_in(bundle))
        await first.update_items([ItemUpdate(item_id=item_id(3), category="tent")], single=True)
        second = make_service(recipe, calls)
        for folder in (bundle, other_bundle):
            await second.load(folder, version_in(folder))
            assert [name for name, _ in await tents_of(second)] == [item_id(3)]
        assert calls == ["a new item"] * 2, "no text of the bundle's is read anew"

    asyncio.run(run())


def test_another_replica_takes_them_up_by_itself(recipe: Recipe, bundle: Path) -> None:
    async def run() -> None:
        one, other = make_service(recipe), make_service(recipe)
        for service in (one, other):
            await service.load(bundle, version_in(bundle))
        following = asyncio.create_task(other.follow())
        await add(one)
        await add(one, item_id="second")
        await one.remove_item("new-lamp")
        async with asyncio.timeout(20):
            while await tents_of(other) != await tents_of(one):
                await asyncio.sleep(0.05)
        following.cancel()
        assert [name for name, _ in await tents_of(other)] == ["second"]

    asyncio.run(run())


def test_a_new_bundle_reads_their_texts_with_its_own_language_model(
    recipe: Recipe, bundle: Path, other_bundle: Path
) -> None:
    async def run() -> None:
        calls: list[str] = []
        one, other = make_service(recipe, calls), make_service(recipe)
        for service in (one, other):
            await service.load(bundle, version_in(bundle))
        await add(one)
        calls.clear()
        await one.load(other_bundle, version_in(other_bundle))
        assert calls == ["a new item", "green lamp"]
        # The other replica, on the old bundle still, is added to meanwhile.
        await other.refresh()
        await add(other, item_id="late")
        await one.refresh()
        assert calls == ["a new item", "green lamp", "green lamp"]
        fresh = make_service(recipe)
        await fresh.load(other_bundle, version_in(other_bundle))
        assert await tents_of(fresh) == await tents_of(one)
        assert {name for name, _ in await tents_of(one)} == {"new-lamp", "late"}
        assert await tents_of(one) != await tents_of(other)

    asyncio.run(run())


def test_a_bundle_that_holds_them_ranks_them_itself(
    recipe: Recipe, bundle: Path, tmp_path: Path, language_model: Path
) -> None:
    async def run() -> None:
        service = make_service(recipe)
        await service.load(bundle, version_in(bundle))
        await add(service, item_id="item-1000")
        items = make_items()
        held = items.with_columns(items[Col.item].replace(item_id(298), "item-1000"))
        whole = make_bundle(
            tmp_path / "whole", make_recipe(tmp_path, language_model), seed=4, items=held
        )
        await service.load(whole.folder, whole.version)
        assert service.describe()["num_added"] == 0
        # It scores as the bundle has learned, and is what was said of it last.
        assert [name for name, _ in await tents_of(service)] == ["item-1000"]
        assert await add(service, item_id="item-1000") == 0
        await service.remove_item("item-1000")
        assert await tents_of(service) == []
        assert await add(service, item_id="item-1000") == 1
        await service.load(bundle, version_in(bundle))
        assert [name for name, _ in await tents_of(service)] == ["item-1000"]

    asyncio.run(run())


def test_there_is_room_for_so_many(recipe: Recipe, bundle: Path) -> None:
    small = recipe.serve.model_copy(update={"max_added_items": 2})

    async def run() -> None:
        service = make_service(recipe.model_copy(update={"serve": small}))
        await service.load(bundle, version_in(bundle))
        await add(service, item_id="a")
        await add(service, item_id="b")
        with pytest.raises(Refused, match="at most 2"):
            await add(service, item_id="c")
        assert await add(service, item_id="a", title="another") == 1
        await service.remove_item("b")
        assert await add(service, item_id="c") == 1

    asyncio.run(run())


def test_a_lost_store_costs_the_added_items_alone(recipe: Recipe, bundle: Path) -> None:
    """Its file emptied under a running service: what it held is gone, what comes is taken up."""

    async def run() -> None:
        service = make_service(recipe)
        await service.load(bundle, version_in(bundle))
        await add(service, item_id="a")
        await add(service, item_id="b")
        (path,) = Path(recipe.root).glob("*.items.sqlite")
        with sqlite3.connect(path) as db:
            db.execute("DELETE FROM items")
        db.close()
        await add(service, item_id="c")
        assert [name for name, _ in await tents_of(service)] == ["c"]

    asyncio.run(run())
