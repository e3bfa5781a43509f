"""Bundles at URIs: fetched into the node's cache, held while they are served."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from bundles import version_in
from object_store import ObjectStore
from services import make_service

from recsys.config import Recipe
from recsys.storage.location import Location
from recsys.storage.node_cache import NodeCache
from recsys.storage.published import publish
from serve.core.service import Service
from serve.models.arms import ResolvedArm, resolve_arms
from serve.schemas.requests import RecommendRequest
from serve.settings import Settings


@pytest.fixture
def remote(recipe: Recipe, tmp_path: Path) -> Recipe:
    """The recipe with a cache of its own."""
    storage = recipe.storage.model_copy(update={"cache_dir": str(tmp_path / "cache")})
    return recipe.model_copy(update={"storage": storage})


@pytest.fixture
def place(store: ObjectStore, bundle: Path) -> Location:
    return published(store, bundle, "one")


def published(store: ObjectStore, bundle: Path, name: str) -> Location:
    place = Location(f"{store.uri}/bundles/{name}")
    publish(bundle, place)
    return place


def ask(service: Service) -> str:
    answer = asyncio.run(service.recommend(RecommendRequest(user_id="u")))
    return str(json.loads(answer)["model_version"])


def cached(recipe: Recipe) -> list[str]:
    folder = Settings.of(recipe).storage.cache.folder
    return [path.name for path in folder.iterdir() if path.is_dir()]


def test_a_bundle_at_a_uri_answers_and_goes_when_it_is_swapped(
    store: ObjectStore, remote: Recipe, place: Location, bundle: Path, other_bundle: Path
) -> None:
    service = make_service(remote)
    asyncio.run(service.load(place, version_in(bundle)))
    assert ask(service) == version_in(bundle)
    (first,) = cached(remote)
    cache = NodeCache(Settings.of(remote).storage.cache.folder, 0)
    assert cache.trim() > 0, "it is held while it is served"
    assert cached(remote) == [first]
    other = published(store, other_bundle, "two")
    asyncio.run(service.load(other, version_in(other_bundle)))
    assert ask(service) == version_in(other_bundle)
    cache.trim()
    assert first not in cached(remote) and len(cached(remote)) == 1


def test_what_cannot_be_fetched_leaves_the_last_good_one(
    store: ObjectStore, remote: Recipe, place: Location, bundle: Path, other_bundle: Path
) -> None:
    service = make_service(remote)
    asyncio.run(service.load(place, version_in(bundle)))
    other = published(store, other_bundle, "two")
    with store.failing(lambda method, path: "/two/" in path):
        asyncio.run(service.load(other, version_in(other_bundle)))
    assert ask(service) == version_in(bundle)
    assert "the store does not answer" in str(service.describe()["failed_update"])
    store.remove_bucket()
    asyncio.run(service.load(other, version_in(other_bundle)))
    assert service.describe()["failed_update"] == "there is no such bucket"
    assert ask(service) == version_in(bundle), "what was fetched needs no store"


def test_arms_may_have_bundles_at_uris(
    store: ObjectStore, remote: Recipe, place: Location, bundle: Path, other_bundle: Path
) -> None:
    other = published(store, other_bundle, "two")
    arms = [{"name": "control", "weight": 0}, {"name": "new", "bundle": str(other), "weight": 1}]
    serve = remote.serve.model_validate(remote.serve.model_dump() | {"arms": arms})
    resolved = resolve_arms(remote.model_copy(update={"serve": serve}))
    assert [(arm.bundle, arm.version) for arm in resolved] == [
        (None, None), (str(other), version_in(other_bundle)),
    ]  # fmt: skip
    service = make_service(remote)
    sent = [ResolvedArm.model_validate(arm.model_dump(mode="json")) for arm in resolved]
    asyncio.run(service.load(place, version_in(bundle), sent))
    assert ask(service) == version_in(other_bundle)
