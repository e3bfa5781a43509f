"""`compact`: exactly once, whatever ends it; erasures; and `prepare` on what it leaves."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import (
    KEY,
    KEY_ENV,
    day,
    prepare_here,
    tiny_events,
    tiny_items,
    tiny_log,
    tiny_recipe,
    tiny_recipe_file,
    write_log,
)

from benchmarks.state.redis_server import Server, server_binary
from ray_jobs import compact, prepare
from recsys.artifacts.run import Run
from recsys.config import Recipe, load_recipe
from recsys.data.feedback import (
    Feedback,
    erase_rows,
    events_table,
    finished,
    merge_days,
    new_file_name,
    tidy,
)
from recsys.data.pseudonyms import pseudonym
from recsys.errors import DataError
from recsys.schema import EVENT_CODE, EVENTS, IMPRESSIONS, TIMESTAMP, Col
from recsys.state import (
    STATE_FILE,
    SqliteState,
    StateEvent,
    Tombstone,
    open_state,
    state_of,
)
from recsys.state.base import digest_of
from recsys.state.tombstones import digest

ROOT = Path(__file__).parents[2]
#: The steps to die at: a run has some 300, and more where files wait to be merged.
STEPS = range(1, 900, 25)
TODAY = dt.date(2026, 3, 5)


def event(number: int, user: str = "u", timestamp: int | None = None) -> StateEvent:
    at = number if timestamp is None else timestamp
    return StateEvent(user, f"e{number}", f"item-{number % 7}", 4, at)


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


def test_a_detail_that_no_column_holds_costs_the_event_nothing_else() -> None:
    told = '{"position": 4294967296, "dwell_ms": 99999999999999999999, "price": 2.5}'
    (row,) = events_table([replace(event(1), details=told)]).to_pylist()
    assert (row[Col.position], row[Col.dwell_ms], row[Col.price]) == (None, None, 2.5)


class TestErasure:
    def test_finished_files_lose_the_user(self, recipe: Recipe) -> None:
        store, feedback = store_of(recipe), Feedback.of(recipe.root)
        store.append([event(1), event(2, "v"), event(3, "v", timestamp=200)])
        segment = _segment(feedback.impressions / "replica", ["u", "v", None], [1, 2, 3])
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

    def test_what_comes_to_a_file_later_is_erased_by_the_next_run(self, recipe: Recipe) -> None:
        """An answer may wait in a replica's memory while its user is erased."""
        store, feedback = store_of(recipe), Feedback.of(recipe.root)
        store.delete("v", 100)
        compact.execute(Run.open(recipe))
        late = _segment(feedback.impressions / "replica", ["v", "v"], [99, 101])
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


def _segment(folder: Path, users: list[str | None], times: list[int], date: str = "") -> Path:
    columns = {
        Col.request: ["r"] * len(users), Col.user: users, Col.item: ["i"] * len(users),
        Col.position: range(1, len(users) + 1), Col.propensity: [1.0] * len(users),
        Col.score: [0.5] * len(users), Col.model_version: ["m"] * len(users),
        Col.timestamp: pa.array(times, pa.int64()).cast(TIMESTAMP), Col.arm: ["a"] * len(users),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    name = new_file_name()
    path = folder / (f"{date}{name[10:]}" if date else name)
    arrays = [pa.array(list(columns[n]), IMPRESSIONS.field(n).type) for n in IMPRESSIONS.names]
    pq.write_table(pa.table(arrays, schema=IMPRESSIONS), path)
    return path


class TestMerging:
    @pytest.mark.parametrize("is_old", [(True, False), (False, True)])
    def test_files_of_before_there_were_arms(
        self, tmp_path: Path, is_old: tuple[bool, bool]
    ) -> None:
        for number, old in enumerate(is_old):
            path = _segment(tmp_path / str(number), ["u"], [number], "2026-03-03")
            if old:
                pq.write_table(pq.read_table(path).drop_columns([Col.arm]), path)
        merge_days(tmp_path, dt.date(2026, 3, 4))
        (merged,) = finished(tmp_path)
        table = pq.read_table(merged)
        assert table.schema.remove_metadata() == IMPRESSIONS
        arms = {row[Col.timestamp]: row[Col.arm] for row in table.to_pylist()}
        assert [arm is None for _, arm in sorted(arms.items())] == list(is_old)

    def test_a_day_becomes_one_file(self, tmp_path: Path) -> None:
        for replica, number in (("a", 1), ("a", 2), ("b", 3)):
            _segment(tmp_path / replica, ["u"], [number], "2026-03-03")
        today = _segment(tmp_path / "a", ["u"], [4], "2026-03-05")
        merge_days(tmp_path, TODAY)
        assert len(finished(tmp_path)) == 2 and today in finished(tmp_path)
        assert self.times(tmp_path) == [1, 2, 3, 4]
        late = _segment(tmp_path / "b", ["u"], [5], "2026-03-03")
        merge_days(tmp_path, TODAY)
        assert len(finished(tmp_path)) == 2 and not late.exists()
        assert self.times(tmp_path) == [1, 2, 3, 4, 5]
        before = finished(tmp_path)
        merge_days(tmp_path, TODAY)
        assert finished(tmp_path) == before

    @pytest.mark.parametrize("left", range(4))
    def test_a_merge_that_broke_off_doubles_nothing(self, tmp_path: Path, left: int) -> None:
        files = [_segment(tmp_path / "a", ["u"], [number], "2026-03-03") for number in range(3)]
        copies = [path.read_bytes() for path in files]
        merge_days(tmp_path, TODAY)
        for path, content in zip(files[:left], copies, strict=False):
            path.write_bytes(content)
        assert self.times(tmp_path) == [0, 1, 2]
        erase_rows(finished(tmp_path), {"nobody": Tombstone(5, 5), "u": Tombstone(0, 0)})
        assert self.times(tmp_path) == [1, 2]
        tidy(tmp_path)
        assert len(list(tmp_path.rglob("*.parquet"))) == 1
        assert self.times(tmp_path) == [1, 2]

    def test_a_broken_file_is_named(self, tmp_path: Path) -> None:
        for number in range(2):
            path = _segment(tmp_path / "a", ["u"], [number], "2026-03-03")
        path.write_bytes(b"no parquet")
        with pytest.raises(DataError, match=path.name):
            merge_days(tmp_path, TODAY)
        with pytest.raises(DataError, match=path.name):
            erase_rows([path], {"u": Tombstone(5, 5)})

    def test_what_a_killed_process_left_goes_in_time(self, tmp_path: Path) -> None:
        (tmp_path / "gone").mkdir()
        old, new = tmp_path / ".x.parquet.1.part", tmp_path / ".y.parquet.2.part"
        for path in (old, new):
            path.touch()
        for path in (old, tmp_path / "gone"):
            os.utime(path, (0, 0))
        tidy(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [new.name]

    def times(self, folder: Path) -> list[int]:
        tables = [pq.read_table(path) for path in finished(folder)]
        return sorted(pa.concat_tables(tables)[Col.timestamp].cast(pa.int64()).to_pylist())


class TestPrepare:
    """Live events come back in the next `prepare`."""

    @pytest.fixture(autouse=True)
    def _key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(KEY_ENV, KEY)

    def live(self, recipe: Recipe, rows: list[tuple[str, str, dt.datetime]]) -> None:
        events = [
            StateEvent(
                pseudonym(user, KEY.encode()), "", item, EVENT_CODE["purchase"],
                int(moment.timestamp() * 1e6),
            )
            for user, item, moment in rows
        ]  # fmt: skip
        folder = Feedback.of(recipe.root).events
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(events_table(events), folder / new_file_name())

    def test_they_are_read_beside_the_log(self, recipe: Recipe, tmp_path: Path) -> None:
        tiny_log(tmp_path / "log")
        without = prepare_here(recipe).summary
        self.live(recipe, [("customer-001", "item-0003", day(80)), ("new", "item-0004", day(81))])
        plan = prepare.plan(Run.open(recipe))
        assert "read 2 live events" in plan[1] and str(recipe.root / "feedback") in plan[1]
        prepared = prepare_here(recipe)
        assert prepared.summary["counts"]["events"] == without["counts"]["events"] + 2
        assert prepared.summary["counts"]["live"] == 2
        assert pseudonym("new", KEY.encode()) in prepared.users().user_ids
        assert prepared.summary["data_fingerprint"] != without["data_fingerprint"]
        assert any("2 of the rows" in line for line in prepare.report(Run.open(recipe)))

    def test_what_the_next_log_holds_too_counts_once(self, recipe: Recipe, tmp_path: Path) -> None:
        tiny_log(tmp_path / "log")
        without = prepare_here(recipe).summary
        bought = tiny_events().filter(pl.col(Col.event_type) == "purchase").head(3)
        assert bought[Col.session].null_count() == 0, "the live event knows no session"
        again = list(bought.select(Col.user, Col.item, Col.timestamp).rows())
        self.live(recipe, again)
        self.live(recipe, again)
        prepared = prepare_here(recipe)
        assert prepared.summary["data_fingerprint"] == without["data_fingerprint"]
        assert prepared.summary["counts"]["duplicates"] == 6

    def test_they_are_checked_like_the_log(self, recipe: Recipe, tmp_path: Path) -> None:
        tiny_log(tmp_path / "log")
        future = dt.datetime(2999, 1, 1, tzinfo=dt.UTC)
        self.live(recipe, [("u", "gone", day(80)), ("u", "item-0001", future)])
        prepared = prepare_here(recipe)
        assert prepared.summary["quarantined"] == {"unknown_item": 1, "future_timestamp": 1}

    def test_erased_users_are_left_out_up_to_the_erasure(
        self, recipe: Recipe, tmp_path: Path
    ) -> None:
        events = tiny_events()
        spoilt = events.head(1).with_columns(
            pl.lit("customer-001").alias(Col.user), pl.lit("gone").alias(Col.item)
        )
        write_log(tmp_path / "log", pl.concat([events, spoilt]), tiny_items())
        user = pseudonym("customer-001", KEY.encode())
        ahead = ("customer-001", "item-0003", day(85))
        after = ("customer-001", "item-0004", day(84))
        self.live(recipe, [ahead, after, ("u", "item-0004", day(81))])
        at, until = (int(day(number).timestamp() * 1e6) for number in (60, 85))
        known = digest(user, until, EVENT_CODE["purchase"], "item-0003")
        Feedback.of(recipe.root).write_erased({user: Tombstone(at, until, frozenset([known]))})
        assert "leave out 1 erased users" in prepare.plan(Run.open(recipe))[2]
        prepared = prepare_here(recipe)
        users = prepared.users()
        mine = users.user_ids.index(user)
        times = users.timestamps[users.offsets[mine] : users.offsets[mine + 1]]
        own = events.filter(pl.col(Col.user) == "customer-001")
        assert len(times) == own.filter(pl.col(Col.timestamp) > day(60)).height + 1
        assert times.min() > day(60).timestamp() * 1e6
        early = own.filter(pl.col(Col.timestamp) <= day(60)).height
        assert prepared.summary["counts"]["erased"] == early + 2 > 2
        assert prepared.summary["quarantined"] == {}, "the spoilt row is of the erased time"
        assert any("erased users left out" in line for line in prepare.report(Run.open(recipe)))
