"""What holds for the SQLite file beyond one process's life."""

import multiprocessing
import os
import shutil
import signal
import sqlite3

import numpy as np
import pyarrow as pa
import pytest

from recsys.errors import DataError
from recsys.schema import HISTORIES
from recsys.state import SqliteState, StateEvent, Tombstone
from recsys.state.sqlite.file import UserFile
from recsys.state.sqlite.statements import APPLICATION_ID, FORMAT_VERSION

SPAWN = multiprocessing.get_context("spawn")


def num_new(outcomes):
    return outcomes.count("new")


def event(user="u", event_id="e", timestamp=0):
    return StateEvent(user, event_id, "item", 2, timestamp)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.sqlite"


def test_reopening_keeps_all(path):
    store = SqliteState(path, 10)
    events = [event(event_id=str(t), timestamp=t) for t in range(4)]
    store.append(events)
    table = pa.table([["v"], [[0]], [[1]], [[7]], [[0]]], schema=HISTORIES)
    assert store.seed(table, np.array(["a"]), 10, source="bundle")
    store.close()
    store.close()
    again = SqliteState(path, 10)
    assert again.history("u", 10) == events
    assert num_new(again.append(events)) == 0
    assert again.seed(table, np.array(["a"]), 10, source="bundle") is False
    assert again.count_users() == 2
    again.close()


def _append_many(path, worker):
    store = SqliteState(path, 1000)
    for number in range(40):
        events = [event("u", f"{worker}-{number}", number), event("u", f"both-{number}", number)]
        store.append(events)
    store.close()


def test_processes_that_append_at_once_lose_nothing(path):
    # They also make the file at once.
    workers = [SPAWN.Process(target=_append_many, args=(path, worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    store = SqliteState(path, 1000)
    assert len(store.history("u", 1000)) == 4 * 40
    store.close()


def _seed(path):
    store = SqliteState(path, 1000)
    rows = [[[0] * 300] * 20, [[1] * 300] * 20, [list(range(300))] * 20, [list(range(300))] * 20]
    table = pa.table([[f"u{n}" for n in range(20)], *rows], schema=HISTORIES)
    seeded = store.seed(table, np.array(["a"]), 1000, source="bundle")
    complete = len(store.history("u19", 1000)) == 300
    store.close()
    return seeded, complete


def test_of_replicas_that_seed_at_once_one_does_and_all_see_it(path):
    with SPAWN.Pool(3) as pool:
        results = pool.map(_seed, [path] * 6, chunksize=1)
    assert sum(seeded for seeded, _ in results) == 1
    assert all(complete for _, complete in results)


def _append_and_die(path):
    SqliteState(path, 10).append([event(event_id="accepted")])
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.chaos
def test_what_was_accepted_outlives_a_killed_process(path):
    worker = SPAWN.Process(target=_append_and_die, args=(path,))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    store = SqliteState(path, 10)
    assert [e.event_id for e in store.history("u", 10)] == ["accepted"]
    assert [e.event_id for e in store.claim(10).events] == ["accepted"]
    store.close()


def test_commits_are_synced_to_disk(path):
    file = UserFile(path)
    with file.write() as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    file.close()


def test_a_failed_append_leaves_nothing_behind(path):
    store = SqliteState(path, 10)
    with pytest.raises(DataError):
        store.append([event(event_id="1"), StateEvent("u", "2", None, 2, 0)])
    assert store.history("u", 10) == []
    assert num_new(store.append([event(event_id="1")])) == 1
    store.close()


def test_reads_go_on_while_another_process_writes(path):
    store = SqliteState(path, 10)
    store.append([event()])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("DELETE FROM events")
    assert store.history("u", 10) == [event()]
    other.execute("ROLLBACK")
    other.close()
    store.close()


def test_of_deleted_users_the_file_holds_the_tombstone_alone(path):
    store = SqliteState(path, 100)
    store.append([event("u" * 32, f"deadbeef-{n}", n) for n in range(50)] + [event("v", "kept")])
    store.delete("u" * 32, 100)
    store.close()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert b"deadbeef" not in path.read_bytes()
    assert b"kept" in path.read_bytes()
    assert path.read_bytes().count(b"u" * 32) == 1


def test_a_file_of_format_1_goes_on(path):
    """As the release before wrote it."""
    with sqlite3.connect(path) as db:
        db.executescript(
            "CREATE TABLE events (user TEXT NOT NULL, id TEXT NOT NULL, item TEXT NOT NULL, "
            "code INTEGER NOT NULL, us INTEGER NOT NULL, PRIMARY KEY (user, id)) WITHOUT ROWID;"
            "CREATE TABLE meta (key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (key, value)) "
            "WITHOUT ROWID; INSERT INTO events VALUES ('u', 'old', 'item', 2, 0);"
            "INSERT INTO meta VALUES ('seeded_from', 'bundle');"
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;"
        )
    db.close()
    for _ in range(2):
        store = SqliteState(path, 10)
        assert event(event_id="old") in store.history("u", 10)
        assert store.is_seeded("bundle")
        store.append([event(event_id="new")])
        assert [e.event_id for e in store.claim(10).events] == ["new"]
        store.close()


def test_a_file_of_format_2_goes_on(path):
    """As the release before wrote it: its tombstones hold, its outbox is told on."""
    with sqlite3.connect(path) as db:
        db.executescript(
            "CREATE TABLE events (user TEXT NOT NULL, id TEXT NOT NULL, item TEXT NOT NULL, "
            "code INTEGER NOT NULL, us INTEGER NOT NULL, PRIMARY KEY (user, id)) WITHOUT ROWID;"
            "CREATE TABLE meta (key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (key, value)) "
            "WITHOUT ROWID;"
            "CREATE TABLE outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT NOT NULL, "
            "id TEXT NOT NULL, item TEXT NOT NULL, code INTEGER NOT NULL, us INTEGER NOT NULL);"
            "CREATE TABLE batch (id TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;"
            "CREATE TABLE erased (user TEXT PRIMARY KEY, us INTEGER NOT NULL) WITHOUT ROWID;"
            "INSERT INTO erased VALUES ('gone', 100);"
            "INSERT INTO outbox (user, id, item, code, us) VALUES ('u', 'old', 'item', 2, 0);"
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 2;"
        )
    db.close()
    stores = [SqliteState(path, 10) for _ in range(2)]
    assert stores[0].append([event("gone", "1", timestamp=100)]) == ["erased"]
    assert stores[1].append([event("gone", "2", timestamp=101)]) == ["new"]
    assert [e.event_id for e in stores[0].claim(10).events] == ["old", "2"]
    stores[1].delete("gone", 200)
    assert stores[0].erased() == {"gone": Tombstone(200, 200)}
    for store in stores:
        store.close()


def test_a_batch_outlives_its_process_and_a_copy_of_the_file_makes_another(path, tmp_path):
    store = SqliteState(path, 10)
    store.append([event(event_id="1")])
    store.close()
    copy = shutil.copy(path, tmp_path / "copy.sqlite")
    ids = []
    for file in (path, path, copy):
        store = SqliteState(file, 10)
        ids.append(store.claim(10).id)
        store.close()
    assert ids[0] == ids[1] != ids[2]


def test_a_closed_store_says_so(path):
    store = SqliteState(path, 10)
    store.close()
    for use in (store.ping, store.count_users, lambda: store.append([event()])):
        with pytest.raises(DataError, match="closed"):
            use()


def test_a_file_that_is_no_database(path):
    path.write_bytes(b"user,item\n" * 500)
    with pytest.raises(DataError, match="not a database") as error:
        SqliteState(path, 10)
    assert str(path) in str(error.value)
    assert "move it aside" in error.value.fix
    assert path.read_bytes() == b"user,item\n" * 500


def test_a_database_with_broken_pages(path):
    store = SqliteState(path, 1000)
    store.append([event(event_id=f"{n:09}", timestamp=n) for n in range(1000)])
    store.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(DataError, match=path.name) as error:
        SqliteState(path, 1000).history("u", 10)
    assert "move it aside" in error.value.fix


def test_a_database_of_another_program_is_left_alone(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE orders (id INTEGER)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(DataError, match="another program"):
        SqliteState(path, 10)
    assert path.read_bytes() == before


def test_a_store_of_another_format(path):
    SqliteState(path, 10).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    db.close()
    with pytest.raises(DataError, match=f"format {FORMAT_VERSION + 1}") as error:
        SqliteState(path, 10)
    assert "seeded from the bundle" in error.value.fix


def test_an_empty_file_becomes_a_store(path):
    path.touch()
    store = SqliteState(path, 10)
    assert num_new(store.append([event()])) == 1
    store.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="state.sqlite") as error:
        SqliteState(tmp_path / "file" / "state.sqlite", 10)
    assert "local disk" in error.value.fix
    with pytest.raises(DataError):
        SqliteState(tmp_path, 10)


def test_nobody_else_may_read_it_and_a_seed_leaves_no_long_log(path):
    store = SqliteState(path, 10_000)
    times = list(range(5000))
    columns = [[[0] * 5000], [[1] * 5000], [times], [times]]
    store.seed(pa.table([["v"], *columns], schema=HISTORIES), np.array(["a"]), 10_000, source="s")
    files = sorted(path.parent.glob("state.sqlite*"))
    assert len(files) == 3
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert path.with_name("state.sqlite-wal").stat().st_size == 0
    store.close()
