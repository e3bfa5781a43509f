"""A run in a store: its tasks see no folder in common, and its pieces lie nowhere else."""

from __future__ import annotations

import io
import itertools
import os
import shutil
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pytest
from growing_log import GrowingLog, night, with_new_items
from object_store import ObjectStore
from prepare_runs import hashes
from tiny import KEY, KEY_ENV, day, tiny_recipe

from recsys.artifacts.run import Run
from recsys.config import Recipe, recipe_from_dict
from recsys.data.feedback import Feedback
from recsys.data.pseudonyms import pseudonym
from recsys.errors import DataError, StorageError
from recsys.preparation.kept import KEPT
from recsys.preparation.prepared import PREPARED
from recsys.preparation.preparing import prepare
from recsys.preparation.stored import kept_of
from recsys.schema import Col
from recsys.state import Tombstone


@pytest.fixture
def shop(tmp_path: Path) -> GrowingLog:
    return GrowingLog(tmp_path)


def in_store(recipe: Recipe, folder: Path, node: str = "one") -> Recipe:
    """The same run in a store, as a node with a disk of its own sees it."""
    raw = recipe.resolved()
    raw |= {"run_dir": "s3://shop/runs/{name}"}
    raw["storage"] |= {"cache_dir": str(folder / node)}
    return recipe_from_dict(raw)


def bytes_of(recipe: Recipe) -> dict[str, str]:
    """Hashes of the prepared data, but of the summary, which names the run's place."""
    Run.open(recipe).recipe.shared.bring(recipe.root / PREPARED)
    found = hashes((recipe.root / PREPARED).resolve())
    found.pop("prepare.json")
    return found


def test_the_prepared_data_are_those_of_a_run_in_a_folder(
    store: ObjectStore, shop: GrowingLog, tmp_path: Path
) -> None:
    """And so on a second night, whose job runs on another node."""
    recipe = shop.recipe()
    one, two = (in_store(recipe, tmp_path, node) for node in ("one", "two"))
    shop.prepare(recipe)
    shop.prepare(one)
    assert bytes_of(one) == bytes_of(recipe)
    assert not (one.root / KEPT).exists(), "histories stay in the store alone"
    assert not list(one.storage.cache.folder.glob(".task-*"))
    shop.prepare(two)
    assert not shop.tasks
    shop.add("c", night(80, range(1)))
    shop.prepare(recipe)
    shop.prepare(two)
    assert (shop.tasks["Split"], shop.tasks["Build"], shop.tasks["JoinRanges"]) == (1, 1, 2)
    assert bytes_of(two) == bytes_of(recipe) == bytes_of(one)
    shop.items(with_new_items())
    shop.add("d", night(88))
    shop.prepare(recipe)
    shop.prepare(one)
    assert bytes_of(one) == bytes_of(recipe)


def test_nothing_in_the_store_holds_an_erased_user(
    store: ObjectStore, shop: GrowingLog, tmp_path: Path
) -> None:
    recipe = in_store(shop.recipe(), tmp_path)
    shop.prepare(recipe)
    user = pseudonym("customer-003", KEY.encode())

    def holding() -> list[str]:
        """Of the pieces, and of the prepared data, whatever attempt they belong to."""
        keys = [key for key in store.stored("runs/") if key.endswith(".parquet")]
        frames = {key: pl.read_parquet(io.BytesIO(store.read(key))) for key in keys}
        return [
            key
            for key, frame in frames.items()
            if Col.user in frame.columns and user in frame[Col.user].to_list()
        ]

    assert holding()
    feedback = Feedback.of(recipe.root)
    feedback.folder.mkdir(parents=True)
    at = int(day(95).timestamp() * 1e6)
    feedback.write_erased({user: Tombstone(at, at)})
    shop.prepare(recipe)
    assert [key for key in holding() if f"/{KEPT}/" in key] == []


def test_a_store_that_fails_at_times_changes_nothing(
    store: ObjectStore, shop: GrowingLog, tmp_path: Path
) -> None:
    recipe = shop.recipe()
    shop.prepare(recipe)
    stored = in_store(recipe, tmp_path)
    asked = itertools.count()
    with store.failing(lambda method, path: next(asked) % 25 == 0, times=1_000):
        shop.prepare(stored)
    assert bytes_of(stored) == bytes_of(recipe)


def test_one_that_fails_for_good_leaves_the_prepared_data_as_they_were(
    store: ObjectStore, shop: GrowingLog, tmp_path: Path
) -> None:
    recipe = in_store(shop.recipe(), tmp_path)
    shop.prepare(recipe)
    before = bytes_of(recipe)
    shop.add("c", night(80, range(1)))
    with (
        store.failing(lambda method, path: method == "PUT" and "/buckets/" in path),
        pytest.raises(StorageError, match="does not answer|500"),
    ):
        shop.prepare(recipe)
    assert bytes_of(recipe) == before
    shop.prepare(recipe)
    assert bytes_of(recipe) != before


def test_a_bucket_that_vanishes_is_told(
    store: ObjectStore, shop: GrowingLog, tmp_path: Path
) -> None:
    recipe = in_store(shop.recipe(), tmp_path)
    shop.prepare(recipe)
    store.remove_bucket()
    shutil.rmtree(recipe.root)
    with pytest.raises((StorageError, DataError), match="no such bucket|bucket"):
        shop.prepare(recipe)


def test_two_runs_at_once_are_refused(store: ObjectStore, shop: GrowingLog, tmp_path: Path) -> None:
    one, two = (in_store(shop.recipe(), tmp_path, node) for node in ("one", "two"))
    with kept_of(one).locked(), pytest.raises(StorageError, match="in use by"):
        shop.prepare(two)
    shop.prepare(two)


def test_without_a_key_of_its_own_it_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    """One that `prepare` makes would lie on a node alone."""
    shop = GrowingLog(tmp_path)
    recipe = in_store(shop.recipe(), tmp_path)
    with (
        patch.dict("os.environ"),
        pytest.raises(DataError, match="no folder of its own for the pseudonym key") as told,
    ):
        os.environ.pop(KEY_ENV, None)
        prepare(recipe)
    assert "set RAYCOMMEND_PSEUDONYM_KEY, or name a file" in str(told.value)
    assert not store.stored("runs/")
    file = tmp_path / "key"
    file.write_text(KEY)
    raw = recipe.resolved()
    raw["privacy"] |= {"key_file": str(file)}
    prepare(recipe_from_dict(raw))
    assert tiny_recipe(tmp_path).root != recipe.root
