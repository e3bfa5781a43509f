"""Feedback at a URI: written by replicas and `compact`, read by `prepare` on another machine."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from live_feedback import event
from object_store import ObjectStore
from tiny import tiny_recipe

from ray_jobs import compact
from recsys.artifacts.run import Run
from recsys.config import Recipe
from recsys.data.feedback import finished
from recsys.errors import RecipeError, StorageError
from recsys.schema import Col
from recsys.state import STATE_FILE, SqliteState
from recsys.storage.conditional import locked
from recsys.storage.location import Location
from serve.settings import Settings
from serve.stores.impressions import Impressions, Shown


@pytest.fixture
def recipe(store: ObjectStore, tmp_path: Path) -> Recipe:
    return tiny_recipe(tmp_path, storage={"feedback": f"{store.uri}/feedback/{{name}}"})


def store_of(recipe: Recipe) -> SqliteState:
    return SqliteState(recipe.root / STATE_FILE, 10)


def elsewhere(recipe: Recipe, tmp_path: Path) -> Run:
    """The same recipe on another machine, after `prepare` has fetched."""
    run = Run.open(recipe.model_copy(update={"run_dir": str(tmp_path / "elsewhere")}))
    assert run.feedback_mirror is not None
    run.feedback_mirror.pull()
    return run


def times(run: Run) -> Counter[int]:
    rows = [pl.read_parquet(path, glob=False) for path in finished(run.feedback.events)]
    return Counter(pl.concat(rows)[Col.timestamp].dt.epoch("us").to_list()) if rows else Counter()


def show(recipe: Recipe, user: str) -> None:
    """A replica's list."""
    log = Impressions(Settings.of(recipe).impressions, str)
    log.offer(Shown("r", user, [{"item_id": "i", "score": 0.5}], "m", 1, "a"))
    log.close()
    assert log.num_dropped == 0


def test_what_the_service_gives_back_reaches_another_machine(
    recipe: Recipe, store: ObjectStore, tmp_path: Path
) -> None:
    show(recipe, "u")
    show(recipe, "v")
    state = store_of(recipe)
    state.append([event(number) for number in range(25)])
    compact.execute(Run.open(recipe))
    assert state.num_waiting() == 0
    assert compact.report(Run.open(recipe))[:2] == [
        "25 live events in 1 files", "2 impressions in 2 files",
    ]  # fmt: skip
    run = elsewhere(recipe, tmp_path)
    assert times(run) == Counter(range(25))
    assert all(key.startswith("feedback/tiny/") for key in store.stored())
    # An erasure reaches files that are there already.
    state.delete("u", 10**12)
    compact.execute(Run.open(recipe))
    run = elsewhere(recipe, tmp_path)
    assert times(run) == Counter() and list(run.feedback.erased()) == ["u"]
    (left,) = [
        rows
        for path in finished(run.feedback.impressions)
        if (rows := pl.read_parquet(path, glob=False)).height
    ]
    assert left[Col.user].to_list() == ["v"]
    state.close()


@pytest.mark.slow
def test_events_are_there_once_whatever_fails(
    recipe: Recipe, store: ObjectStore, tmp_path: Path
) -> None:
    state, sent = store_of(recipe), 0
    # What of the store's answers fails: uploads of events, deletions, the lock, lists.
    for met in ("/events/", "delete", ".lock/", ""):
        state.append([event(number) for number in range(sent, sent + 5)])
        sent += 5
        with store.failing(
            lambda method, path, met=met: (
                method in ("PUT", "POST", "DELETE", "GET")
                and met in path
                and (bool(met) or method == "GET")
            )
        ):
            try:
                compact.execute(Run.open(recipe))
            except StorageError as error:
                assert "does not answer" in str(error)
        compact.execute(Run.open(recipe))
        assert times(elsewhere(recipe, tmp_path)) == Counter(range(sent))
    with store.failing_after(lambda method, path: method == "PUT" and "/events/" in path):
        state.append([event(sent)])
        compact.execute(Run.open(recipe))
    assert times(elsewhere(recipe, tmp_path)) == Counter(range(sent + 1))
    state.close()


def test_two_at_once_are_one(recipe: Recipe, store: ObjectStore) -> None:
    store_of(recipe).append([event(1)])
    with (
        locked(Location(f"{store.uri}/feedback/tiny"), "compact"),
        pytest.raises(StorageError, match="in use by process .* run the same command again"),
    ):
        compact.execute(Run.open(recipe))
    compact.execute(Run.open(recipe))
    assert times(Run.open(recipe)) == Counter([1])


def test_a_bucket_that_vanishes_is_told_and_no_event_is_lost(
    recipe: Recipe, store: ObjectStore, tmp_path: Path
) -> None:
    state = store_of(recipe)
    state.append([event(1)])
    store.remove_bucket()
    with pytest.raises(StorageError, match="no such bucket"):
        compact.execute(Run.open(recipe))
    log = Impressions(Settings.of(recipe).impressions, str)
    log.offer(Shown("r", "u", [{"item_id": "i", "score": 0.5}], "m", 1, "a"))
    log.close()
    assert log.num_dropped == 1, "an answer is worth more than its log"
    store.client.create_bucket(Bucket="shop")
    compact.execute(Run.open(recipe))
    assert times(elsewhere(recipe, tmp_path)) == Counter([1])
    state.close()


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"storage.feedback.*is a URI, such as s3://"):
        tiny_recipe(tmp_path, storage={"feedback": "feedback"})
