"""`compact`: exactly once, whatever ends it; erasures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import found
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from live_feedback import event, write_segment
from tiny import tiny_recipe, tiny_recipe_file

from benchmarks.state.redis_server import Server, server_binary
from ray_jobs import compact
from recsys.artifacts.run import Run
from recsys.config import Recipe, load_recipe
from recsys.data.feedback import Feedback, finished
from recsys.errors import DataError
from recsys.schema import EVENTS, Col
from recsys.state import STATE_FILE, SqliteState, StateEvent, Tombstone, open_state, state_of
from recsys.state.base import digest_of

ROOT = Path(__file__).parents[2]
#: The steps to die at: a run has some 300, and more where files wait to be merged.
STEPS = range(1, 900, 25)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return tiny_recipe(tmp_path)


def store_of(recipe: Recipe) -> SqliteState:
    return SqliteState(recipe.root / STATE_FILE, 10)


def live_rows(recipe: Recipe) -> pl.DataFrame:
    files = finished(Feedback.of(recipe.root).events)
    return (
        pl.concat([pl.read_parquet(path, glob=False) for path in files])
        if files
        else pl.DataFrame()
    )


def test_accepted_events_become_canonical_ones(recipe: Recipe) -> None:
    store = store_of(recipe)
    store.append([event(number) for number in range(25)])  # more than the cap
    store.append([event(20)])
    assert compact.execute(Run.open(recipe)) == recipe.root / "feedback"
    rows = live_rows(recipe)
    assert rows.columns == EVENTS.names
    (path,) = finished(Feedback.of(recipe.root).events)
    assert pq.read_schema(path).remove_metadata().types == EVENTS.types
    assert rows[Col.timestamp].dt.epoch("us").to_list() == list(range(25))
    assert set(rows[Col.user]) == {"u"} and set(rows[Col.event_type]) == {"purchase"}
    assert store.num_waiting() == 0 and len(store.history("u", 100)) == 10
    compact.execute(Run.open(recipe))
    assert live_rows(recipe).height == 25
    assert compact.report(Run.open(recipe))[0] == "25 live events in 1 files"
    store.close()


def test_a_dry_run_tells_and_changes_nothing(recipe: Recipe) -> None:
    store = store_of(recipe)
    store.append([event(1), event(2, "v")])
    store.delete("v", 10)
    lines = compact.plan(Run.open(recipe))
    assert "take 1 events" in lines[0] and "1 users" in lines[1]
    assert not (recipe.root / "feedback").exists() and store.num_waiting() == 1
    store.close()


def test_without_a_store_that_it_can_reach_it_says_so(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no store of users") as error:
        compact.execute(Run.open(recipe))
    assert "recsys serve" in error.value.fix
    serve = {"state": {"backend": "memory"}, "autoscaling": {"max_replicas": 1}}
    with pytest.raises(DataError, match=r"serve\.state\.backend"):
        compact.execute(Run.open(tiny_recipe(tmp_path, serve=serve)))
    assert not recipe.root.exists()


@pytest.mark.chaos
def test_killed_anywhere_nothing_is_lost_and_nothing_doubled(tmp_path: Path) -> None:
    """A real SIGKILL at one step after another, each run going on with what the last one left."""
    path = tiny_recipe_file(tmp_path)
    recipe = load_recipe(path)
    store = store_of(recipe)
    accepted: list[StateEvent] = []
    ends: list[int] = []
    done = threading.Event()

    def send() -> None:
        while not done.wait(0.05):
            batch = [event(len(accepted) + number, f"u{number}") for number in range(3)]
            assert store.append(batch) == ["new"] * 3
            accepted.extend(batch)

    sender = threading.Thread(target=send)
    command = [sys.executable, str(Path(__file__).with_name("dying_compact.py")), str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as runner:  # fmt: skip
        assert runner.stdin is not None and runner.stdout is not None
        sender.start()
        try:
            for number, step in enumerate(STEPS):
                print(step, file=runner.stdin, flush=True)
                ends.append(int(runner.stdout.readline()))
                if number % 4 == 0:
                    _make_old(recipe)
        finally:
            done.set()
            sender.join()
            runner.stdin.close()
    assert set(ends) <= {-signal.SIGKILL, 0} and ends.count(-signal.SIGKILL) > 10
    compact.execute(Run.open(recipe))
    rows = live_rows(recipe).select(Col.user, Col.item, pl.col(Col.timestamp).dt.epoch("us"))
    assert Counter(rows.rows()) == Counter((e.user_id, e.item_id, e.timestamp) for e in accepted)
    assert store.num_waiting() == 0
    store.close()


def _make_old(recipe: Recipe) -> None:
    """Let finished batches be of yesterday, so that the next run merges them."""
    with closing(sqlite3.connect(recipe.root / STATE_FILE)) as store:
        claimed = store.execute("SELECT id FROM batch").fetchall()
    for path in Feedback.of(recipe.root).events.glob("*.parquet"):
        if (path.stem,) not in claimed and "merged" not in path.name:
            path.rename(path.with_name(f"2026-01-01{path.name[10:]}"))


def test_two_at_once_are_refused(recipe: Recipe) -> None:
    store_of(recipe).close()
    feedback = Feedback.of(recipe.root)
    for exclusive in (True, False):
        feedback.folder.mkdir(exist_ok=True)
        with feedback.locked(exclusive=exclusive), pytest.raises(DataError, match="in use"):
            compact.execute(Run.open(recipe))
    compact.execute(Run.open(recipe))


def test_a_restored_copy_of_the_store_loses_nothing(recipe: Recipe) -> None:
    """Its sequence numbers begin where the copy was made: they must not be taken for old ones."""
    store = store_of(recipe)
    store.append([event(1)])
    store.close()
    copy = shutil.copy(recipe.root / STATE_FILE, recipe.root / "copy")
    for files in ((), (copy,)):
        for file in files:
            shutil.copy(file, recipe.root / STATE_FILE)
        store = store_of(recipe)
        store.append([event(2 + len(files)), event(4 + len(files))])
        store.close()
        compact.execute(Run.open(recipe))
    times = live_rows(recipe)[Col.timestamp].dt.epoch("us").to_list()
    # What both of them held is there twice: `prepare` counts it once.
    assert sorted(times) == [1, 1, 2, 3, 4, 5]


def test_redis_is_emptied_too(tmp_path: Path) -> None:
    binary = server_binary()
    if binary is None:
        pytest.skip("no valkey-server or redis-server here")
    server = Server(binary, tmp_path, [])
    server.start()
    try:
        recipe = tiny_recipe(tmp_path, serve={"state": {"backend": "redis", "url": server.url}})
        store = open_state(state_of(recipe), tmp_path / "unused")
        store.append([event(number) for number in range(5)])
        store.delete("v", 100)
        compact.execute(Run.open(recipe))
        assert live_rows(recipe).height == 5 and store.num_waiting() == 0
        assert Feedback.of(recipe.root).erased() == {"v": Tombstone(100, 100)}
        store.close()
    finally:
        server.stop()


class TestErasure:
    def test_finished_files_lose_the_user(self, recipe: Recipe) -> None:
        store, feedback = store_of(recipe), Feedback.of(recipe.root)
        store.append([event(1), event(2, "v"), event(3, "v", timestamp=200)])
        segment = write_segment(feedback.impressions / "replica", ["u", "v", None], [1, 2, 3])
        compact.execute(Run.open(recipe))
        assert feedback.erased() == {}
        store.delete("v", 100)
        ahead = event(3, "v", timestamp=200)  # the sender's clock was
        assert store.append([ahead]) == ["erased"]
        after = [event(4, "v", timestamp=150), event(5, "v", timestamp=201)]
        assert store.append(after) == ["new", "new"]
        compact.execute(Run.open(recipe))
        left = live_rows(recipe).select(Col.user, pl.col(Col.timestamp).dt.epoch("us"))
        assert set(left.rows()) == {("u", 1), ("v", 150), ("v", 201)}
        assert feedback.erased() == {"v": Tombstone(100, 200, frozenset([digest_of(ahead)]))}
        assert pq.read_table(segment)[Col.user].to_pylist() == ["u", None]
        store.close()

    def test_the_page_loses_the_user(self, recipe: Recipe) -> None:
        run, shown = Run.open(recipe), found.examples()
        with closing(store_of(recipe)) as store:
            store.delete(shown["users"][4]["user"], found.US)
        run.report_file.write_text(json.dumps(found.report()))
        run.examples_file.write_text(json.dumps(shown))
        names = [f"User {user['user'][:8]}: {user['num_events']} event" for user in shown["users"]]
        compact.execute(run)
        text = run.page_file.read_text()
        assert [name in text for name in names] == [number != 4 for number in range(10)]

    def test_what_comes_to_a_file_later_is_erased_by_the_next_run(self, recipe: Recipe) -> None:
        """An answer may wait in a replica's memory while its user is erased."""
        store, feedback = store_of(recipe), Feedback.of(recipe.root)
        store.delete("v", 100)
        compact.execute(Run.open(recipe))
        late = write_segment(feedback.impressions / "replica", ["v", "v"], [99, 101])
        compact.execute(Run.open(recipe))
        assert pq.read_table(late)[Col.timestamp].cast(pa.int64()).to_pylist() == [101]
        before = late.stat().st_mtime_ns
        compact.execute(Run.open(recipe))
        assert late.stat().st_mtime_ns == before
        store.close()

    def test_a_lost_store_does_not_lose_the_tombstones(self, recipe: Recipe) -> None:
        store = store_of(recipe)
        store.delete("v", 100)
        compact.execute(Run.open(recipe))
        store.close()
        for path in recipe.root.glob(f"{STATE_FILE}*"):
            path.unlink()
        store = store_of(recipe)
        store.delete("w", 50)
        store.close()
        compact.execute(Run.open(recipe))
        assert Feedback.of(recipe.root).erased() == {
            "v": Tombstone(100, 100),
            "w": Tombstone(50, 50),
        }
