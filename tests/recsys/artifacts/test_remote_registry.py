"""A registry in a store: bundles that are published, moves that only one of several makes."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle
from object_store import ObjectStore
from tiny import tiny_recipe

from recsys.artifacts.bundle import Bundle
from recsys.artifacts.lineage import champion_place
from recsys.artifacts.registry import Registry
from recsys.artifacts.remote_registry import RemoteRegistry
from recsys.artifacts.run import Run
from recsys.config import Recipe
from recsys.errors import BundleError, RaycommendError, RecipeError, StorageError
from recsys.storage.location import Location
from recsys.storage.node_cache import NodeCache


@pytest.fixture
def recipe(store: ObjectStore, tmp_path: Path) -> Recipe:
    return tiny_recipe(
        tmp_path,
        promote={"registry": f"{store.uri}/registry/{{name}}"},
        storage={"cache_dir": str(tmp_path / "cache")},
    )


@pytest.fixture
def registry(store: ObjectStore, tmp_path: Path) -> RemoteRegistry:
    """With three bundles that hold little."""
    registry = another(store, tmp_path)
    for version in "ABC":
        registry.add(small(tmp_path, version), version)
    return registry


def another(store: ObjectStore, tmp_path: Path) -> RemoteRegistry:
    """The same registry, as another process sees it."""
    return RemoteRegistry(Location(f"{store.uri}/r"), NodeCache(tmp_path / "cache", 10**6))


def small(tmp_path: Path, content: str, **meta: Any) -> Path:
    folder = tmp_path / "bundles" / content
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bundle.json").write_text(json.dumps({"content": content, **meta}))
    (folder / "weights").write_text(content * 10)
    return folder


def test_a_whole_bundle_goes_there_and_back(recipe: Recipe, tmp_path: Path) -> None:
    written = make_bundle(Run.open(recipe).bundle_folder, recipe, seed=1)
    registry = Registry.of(recipe)
    assert isinstance(registry, RemoteRegistry) and registry.champion() is None
    with pytest.raises(BundleError, match="no champion yet"):
        registry.path("champion")
    place = registry.add(written.folder, written.version)
    registry.promote(written.version, over=None)
    assert registry.place("champion") == place
    assert str(place) == f"s3://shop/registry/{recipe.name}/bundles/{written.version}"
    folder = registry.path("champion")
    assert folder.is_relative_to(tmp_path / "cache")
    assert Bundle.open(folder).meta == written.meta
    assert champion_place(recipe) == place
    assert Run.open(recipe).registry.describe() == (
        f"champion: {written.version} (change 1 in s3://shop/registry/{recipe.name})"
    )


def test_a_bundle_is_added_once(
    registry: RemoteRegistry, store: ObjectStore, tmp_path: Path
) -> None:
    assert registry.versions() == ["A", "B", "C"]
    store.requests.clear()
    registry.add(small(tmp_path, "A", metrics={"other": 1}), "A")
    assert not [path for method, path in store.requests if method == "PUT"]
    with pytest.raises(BundleError, match="another bundle is registered under this version"):
        registry.add(small(tmp_path, "D"), "A")
    with pytest.raises(BundleError, match="not a version name"):
        registry.add(small(tmp_path, "D"), "../D")


def test_the_champion_moves_as_in_a_folder(registry: RemoteRegistry, tmp_path: Path) -> None:
    local = Registry(tmp_path / "local")
    for version in "ABC":
        local.add(small(tmp_path, version), version)
    noted = {"forced": True, "refusals": ["it is slow"]}
    for each in (registry, local):
        for version in ("A", "B", "B", "C"):
            each.promote(version, evidence=noted | {"num_users": ord(version)})
        assert each.rollback() == "B" and each.previous() == "A"
        assert each.rollback() == each.champion() == "A"
        with pytest.raises(BundleError, match="no champion before this one"):
            each.rollback()
        with pytest.raises(BundleError, match="no such version"):
            each.promote("D")
        assert [m.get("evidence", {}).get("num_users") for m in each.history()] == [
            65, 66, 67, None, None,
        ]  # fmt: skip
        assert each.evidence() == noted | {"num_users": 65}

    def told(registry: Registry) -> list[tuple[str, str]]:
        return [(move["action"], move["version"]) for move in registry.history()]

    assert told(registry) == told(local) and len(told(registry)) == 5


def test_of_two_promoters_one_wins_and_the_other_is_told(
    registry: RemoteRegistry, store: ObjectStore, tmp_path: Path
) -> None:
    registry.promote("A")
    found: dict[str, RaycommendError | None] = {}
    gate = threading.Barrier(2)

    def promote(version: str) -> None:
        mine = another(store, tmp_path)
        mine.champion()
        gate.wait()
        try:
            mine.promote(version, over="A")
            found[version] = None
        except RaycommendError as error:
            found[version] = error

    threads = [threading.Thread(target=promote, args=[version]) for version in "BC"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [version for version, error in found.items() if error is None]
    (error,) = [error for error in found.values() if error]
    assert registry.champion() == winner
    assert str(error) == (
        f"s3://shop/r: another was first: {winner} is champion since. Fix: run the same command "
        "again, which compares with it"
    )
    assert [move["version"] for move in registry.history()] == ["A", winner]


def test_a_move_from_a_state_that_holds_no_more_is_refused(
    registry: RemoteRegistry, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.promote("A")
    registry.promote("B")
    write = RemoteRegistry._write

    def late(mine: RemoteRegistry, state: dict[str, Any]) -> None:
        monkeypatch.setattr(RemoteRegistry, "_write", write)
        another(store, tmp_path).promote("C")
        mine._write(state)

    monkeypatch.setattr(RemoteRegistry, "_write", late)
    with pytest.raises(BundleError, match="another was first: C is champion since"):
        registry.rollback()
    assert registry.champion() == "C" and len(registry.history()) == 3


def test_a_promotion_whose_answer_is_lost_is_one(
    registry: RemoteRegistry, store: ObjectStore
) -> None:
    registry.promote("A")
    with store.failing_after(lambda method, path: method == "PUT" and "/moves/" in path):
        registry.promote("B")
    assert [move["version"] for move in registry.history()] == ["A", "B"]


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1, "champion": "B", "history": []}'])
def test_a_broken_move_is_told(registry: RemoteRegistry, store: ObjectStore, text: str) -> None:
    registry.promote("A")
    store.write("r/moves/00000002.json", text.encode())
    with pytest.raises(BundleError, match=r"r/moves/00000002\.json.*move it aside"):
        registry.champion()
    store.client.delete_object(Bucket="shop", Key="r/moves/00000002.json")
    assert registry.champion() == "A"


def test_a_bucket_that_vanishes_is_told(registry: RemoteRegistry, store: ObjectStore) -> None:
    registry.promote("A")
    store.remove_bucket()
    for act in (registry.champion, lambda: registry.promote("B"), lambda: registry.path("A")):
        with pytest.raises(StorageError, match="there is no such bucket"):
            act()


def test_uris_are_checked_with_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"promote.registry.*no store has URIs of ftp://"):
        tiny_recipe(tmp_path, promote={"registry": "ftp://host/x"})
    with pytest.raises(RecipeError, match=r"run_dir.*names no bucket"):
        tiny_recipe(tmp_path, run_dir="s3://")
