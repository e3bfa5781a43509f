"""Added items over restarts, replicas and bundles."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import item_id, make_bundle, make_items, make_recipe, version_in
from http_calls import LAMP

from recsys.config import Recipe
from recsys.schema import Col
from serve.core.service import Service
from serve.ray.text_encoder import TextEncoder
from serve.schemas.problems import Refused
from serve.schemas.requests import ItemUpdate, RecommendRequest
from serve.settings import Settings


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
