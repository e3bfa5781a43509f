"""What holds for a Redis or Valkey server beyond one process's life."""

import logging
import multiprocessing
import os
import random
import signal
import sys
import time
import uuid

import numpy as np
import pyarrow as pa
import pytest
import redis

import recsys.state.redis.connection as redis_connection
from recsys.config import State
from recsys.errors import DataError
from recsys.schema import HISTORIES
from recsys.state import MemoryState, StateEvent, Tombstone, open_state
from recsys.state.redis import opening
from recsys.state.redis.opening import FORMAT_VERSION
from recsys.state.redis.users import CHUNK, RedisState

SPAWN = multiprocessing.get_context("spawn")
PASSWORD = "not/for messages"
QUOTED = "not%2Ffor%20messages"


def num_new(outcomes):
    return outcomes.count("new")


def event(user="u", event_id="e", timestamp=0):
    return StateEvent(user, event_id, "item", 2, timestamp)


@pytest.fixture
def prefix():
    return uuid.uuid4().hex


@pytest.fixture
def make_store(shared_server, prefix):
    """Open a store on the shared server; all are closed at the end."""
    made = []

    def make(cap=10, url=shared_server.url, prefix=prefix):
        made.append(RedisState(url, prefix, cap))
        return made[-1]

    yield make
    for store in made:
        store.close()


def test_reopening_keeps_all(make_store):
    store = make_store()
    events = [event(event_id=str(t), timestamp=t) for t in range(4)]
    store.append(events)
    table = pa.table([["v"], [[0]], [[1]], [[7]], [[0]]], schema=HISTORIES)
    assert store.seed(table, np.array(["a"]), 10, source="bundle")
    store.close()
    store.close()
    again = make_store()
    assert again.history("u", 10) == events
    assert num_new(again.append(events)) == 0
    assert again.seed(table, np.array(["a"]), 10, source="bundle") is False
    assert again.count_users() == 2


def _append_many(url, prefix, worker):
    store = RedisState(url, prefix, 1000)
    for number in range(40):
        events = [event("u", f"{worker}-{number}", number), event("u", f"both-{number}", number)]
        store.append([*events, event(f"{worker}-{number}")])
    store.close()


def test_processes_that_append_at_once_lose_nothing(shared_server, make_store, prefix):
    arguments = [(shared_server.url, prefix, worker) for worker in range(2)]
    workers = [SPAWN.Process(target=_append_many, args=each) for each in arguments]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    store = make_store(1000)
    assert len(store.history("u", 1000)) == 3 * 40
    assert store.count_users() == 1 + 2 * 40


def _seed(arguments):
    store = RedisState(*arguments, 1000)
    rows = [[[0] * 300] * 20, [[1] * 300] * 20, [list(range(300))] * 20, [list(range(300))] * 20]
    table = pa.table([[f"u{n}" for n in range(20)], *rows], schema=HISTORIES)
    seeded = store.seed(table, np.array(["a"]), 1000, source="bundle")
    complete = [len(store.history(f"u{n}", 1000)) for n in range(20)] == [300] * 20
    store.close()
    return seeded, complete


def test_of_replicas_that_seed_at_once_one_says_so_and_all_see_it(shared_server, prefix):
    with SPAWN.Pool(2) as pool:
        results = pool.map(_seed, [(shared_server.url, prefix)] * 4, chunksize=1)
    assert sum(seeded for seeded, _ in results) == 1
    assert all(complete for _, complete in results)


def test_a_seed_that_broke_off_is_completed_without_doubling(make_store, monkeypatch):
    store = make_store(cap=CHUNK)
    num_users = 2 * CHUNK // 1000
    columns = [[list(range(1000))] * num_users for _ in range(4)]
    columns[0], columns[1] = [[0] * 1000] * num_users, [[1] * 1000] * num_users
    users = [f"u{n}" for n in range(num_users)]
    table = pa.table([users, *columns], schema=HISTORIES)
    with monkeypatch.context() as patched:
        broken = iter([store._seed])

        def seed(**given):
            script = next(broken, None)
            if script is None:
                raise redis.ConnectionError("gone")
            return script(**given)

        patched.setattr(store, "_seed", seed)
        with pytest.raises(DataError, match="gone"):
            store.seed(table, np.array(["a"]), 1000, source="bundle")
    assert not store.is_seeded("bundle")
    assert 0 < store.count_users() < num_users
    late = StateEvent("u0", "from-the-shop", "a", 1, 7)
    assert num_new(store.append([late])) == 0
    assert store.seed(table, np.array(["a"]), 1000, source="bundle")
    assert [len(store.history(user, CHUNK)) for user in users] == [1000] * num_users
    assert store.count_users() == num_users


def test_the_latest_of_many_are_kept(make_store):
    drawn = random.Random(7)
    events = [event(event_id=f"{n:x}", timestamp=drawn.randrange(1500)) for n in range(3000)]
    memory, store = MemoryState(1000), make_store(1000)
    for at in range(0, 3000, 750):
        assert store.append(events[at : at + 750]) == memory.append(events[at : at + 750])
    assert store.history("u", 1000) == memory.history("u", 1000)


def test_a_server_that_is_gone_is_told_at_once_and_may_come_back(make_server, make_store):
    server = make_server()
    store = make_store(url=server.url)
    assert num_new(store.append([event()])) == 1
    server.stop()
    uses = (store.ping, store.count_users, lambda: store.append([event()]))
    for use in (*uses, lambda: store.history("u", 1), lambda: RedisState(server.url, "p", 1)):
        begin = time.monotonic()
        with pytest.raises(DataError) as error:
            use()
        assert time.monotonic() - begin < 3
        assert f"127.0.0.1:{server.port}" in str(error.value)
        assert "127.0.0.1" not in error.value.problem
        assert "see that the server runs" in error.value.fix
    server.start()
    store.ping()
    assert num_new(store.append([event(event_id="later")])) == 1
    server.stop()
    server.start()  # between two uses
    store.ping()


def test_a_server_that_hangs_is_not_waited_for_long(make_server, make_store, monkeypatch):
    monkeypatch.setattr(redis_connection, "ANSWER_S", 0.3)
    server = make_server()
    store = make_store(url=server.url)
    os.kill(server.pid, signal.SIGSTOP)
    begin = time.monotonic()
    with pytest.raises(DataError, match="[Tt]imeout"):
        store.ping()
    assert time.monotonic() - begin < 4
    os.kill(server.pid, signal.SIGCONT)
    store.ping()


@pytest.mark.chaos
def test_what_was_accepted_outlives_a_killed_server(make_server, make_store):
    server = make_server("--appendonly", "yes", "--appendfsync", "always")
    store = make_store(url=server.url)
    store.append([event(event_id="accepted")])
    server.stop(signal.SIGKILL)
    server.start()
    assert [e.event_id for e in store.history("u", 10)] == ["accepted"]
    assert num_new(store.append([event(event_id="accepted")])) == 0


def test_a_server_is_reached_through_a_file_too(make_server, make_store, tmp_path):
    make_server("--unixsocket", str(tmp_path / "s"))
    assert num_new(make_store(url=f"unix://{tmp_path}/s?db=0").append([event()])) == 1
    with pytest.raises(DataError, match="nowhere"):
        make_store(url=f"unix://{tmp_path}/nowhere")


def test_what_may_lose_events_is_warned_of_once(make_server, make_store, caplog):
    make_store()
    assert [(r.levelname, r.name) for r in caplog.records] == [("WARNING", opening.__name__)]
    assert "append-only file is off" in caplog.text
    caplog.clear()
    server = make_server(
        "--appendonly", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"
    )
    make_store(url=server.url)
    assert "append-only" not in caplog.text and "allkeys-lru" in caplog.text
    with redis.Redis(port=server.port) as client:
        client.config_set("maxmemory-policy", "noeviction")
    caplog.clear()
    make_store(url=server.url)
    assert not caplog.records


def test_a_server_that_does_not_tell_its_settings(make_server, make_store, caplog):
    server = make_server()
    with redis.Redis(port=server.port) as client:
        client.acl_setuser(
            "shop", enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"],
            categories=["+@all"], commands=["-info", "-config"],
        )  # fmt: skip
    with caplog.at_level(logging.INFO):
        store = make_store(url=f"redis://shop:{QUOTED}@127.0.0.1:{server.port}/0")
    assert num_new(store.append([event()])) == 1
    assert "does not tell how durable it is" in caplog.text
    assert PASSWORD not in caplog.text and QUOTED not in caplog.text


def test_the_password_stands_in_no_message(make_server, make_store, monkeypatch):
    server = make_server("--requirepass", "another one")
    urls = [
        f"redis://:{QUOTED}@127.0.0.1:{server.port}/0",
        f"redis://127.0.0.1:{server.port}/0?password={QUOTED}",
        f"redis://:{QUOTED}@127.0.0.1:1/0",
        f"http://:{QUOTED}@127.0.0.1",
        "redis://:not/for%20messages@127.0.0.1:6379",
        f"redis://:{QUOTED}@127.0.0.1?no_such_option=1",
        f"redis://:{QUOTED}@two..dots",
    ]
    for url in urls:
        with pytest.raises(DataError) as error:
            make_store(url=url)
        told = f"{error.value!r} {error.value.__reduce__()} {error.value.__cause__}"
        assert "for messages" not in told and "for%20" not in told and "'not'" not in told
    store = make_store(url=f"redis://:another%20one@127.0.0.1:{server.port}/0")
    assert num_new(store.append([event()])) == 1

    def repeat(*_):
        raise redis.ResponseError("unknown command, with args beginning with: 'another one'")

    monkeypatch.setattr(store._client, "hgetall", repeat)
    with pytest.raises(DataError, match=r"beginning with: '\*\*\*'"):
        store.history("u", 1)


def test_stores_with_other_prefixes_do_not_meet(make_store):
    one, other = make_store(), make_store(prefix=uuid.uuid4().hex)
    table = pa.table([["v"], [[0]], [[1]], [[7]], [[0]]], schema=HISTORIES)
    one.append([event()])
    one.seed(table, np.array(["a"]), 10, source="bundle")
    assert other.count_users() == 0
    assert other.history("u", 10) == other.history("v", 10) == []
    assert not other.is_seeded("bundle")
    assert not other.delete("u", 1).held
    assert other.claim(10) is None and one.erased() == {}
    assert one.history("u", 10) == [event()]


def test_a_store_of_another_format_is_left_alone(shared_server, make_store, prefix):
    make_store().append([event()])
    with redis.Redis(port=shared_server.port) as client:
        client.hset(f"{prefix}:meta", "format", FORMAT_VERSION + 1)
        before = client.hgetall(f"{prefix}:u:u")
        with pytest.raises(DataError, match=f"format {FORMAT_VERSION + 1}") as error:
            make_store()
        assert client.hgetall(f"{prefix}:u:u") == before
    assert "serve.state.prefix" in error.value.fix
    make_store(prefix=uuid.uuid4().hex)


def test_a_store_of_format_1_goes_on(shared_server, make_store, prefix):
    make_store().append([event(event_id="old")])
    with redis.Redis(port=shared_server.port) as client:
        client.hset(f"{prefix}:meta", mapping={"format": 1, "num_users": 1})
        client.delete(f"{prefix}:outbox")
        for _ in range(2):
            store = make_store()
            store.append([event(event_id="new")])
            assert [e.event_id for e in store.history("u", 10)] == ["new", "old"]
            assert [e.event_id for e in store.claim(10).events] == ["new"]
            assert client.hget(f"{prefix}:meta", "format") == str(FORMAT_VERSION).encode()


def test_what_comes_of_a_user_while_it_is_erased_is_erased_whole_or_stays_whole(
    make_store, monkeypatch
):
    """An erasure looks through the outbox, which may be long, and others write meanwhile."""
    store, other = make_store(), make_store()
    store.append([event("u", "1", timestamp=5)])
    entries, came = store._entries, [event("u", "2", timestamp=7), event("u", "3", timestamp=150)]

    def slowly(*given):
        found = list(entries(*given))
        if came:
            assert other.append([came.pop()]) == ["new"]
        return iter(found)

    monkeypatch.setattr(store, "_entries", slowly)
    assert store.delete("u", 100).num_events == 3
    assert store.history("u", 10) == [] and store.num_waiting() == 0
    again = [event("u", "4", timestamp=150), event("u", "5", timestamp=149)]
    assert store.append(again) == ["erased", "new"], "what had come from a clock ahead is known"


def test_a_tombstone_of_format_2_holds(shared_server, make_store, prefix):
    """It is the one time of the erasure."""
    make_store().delete("u", 100)
    with redis.Redis(port=shared_server.port) as client:
        client.hset(f"{prefix}:meta", "format", 2)
        client.hset(f"{prefix}:erased", "u", client.hget(f"{prefix}:erased", "u")[:8])
        store = make_store()
        late = [event(event_id="1", timestamp=100), event(event_id="2", timestamp=101)]
        assert store.append(late) == ["erased", "new"]
        store.delete("u", 200)
        assert store.erased() == {"u": Tombstone(200, 200)}
        assert store.append([event(event_id="3", timestamp=200)]) == ["erased"]


def test_users_whose_time_is_over_go_by_the_servers_own_expiry(shared_server, prefix):
    table = pa.table([["v"], [[0]], [[1]], [[2**60]], [[0]]], schema=HISTORIES)
    with redis.Redis(port=shared_server.port) as client:
        for max_age_us, expected in ((3_600_000_000, 3600 + 86_400), (None, -1)):
            store = RedisState(shared_server.url, prefix, 10, max_age_us)
            store.append([event(event_id=str(max_age_us), timestamp=2**60)])
            assert client.ttl(f"{prefix}:u:u") == pytest.approx(expected, abs=5)
            store.close()
        store = RedisState(shared_server.url, prefix, 10, 3_600_000_000)
        store.seed(table, np.array(["a"]), 10, source="bundle")
        assert client.ttl(f"{prefix}:u:v") == pytest.approx(3600 + 86_400, abs=5)
        store.close()


def test_a_key_of_another_program_is_an_error(shared_server, make_store, prefix):
    with redis.Redis(port=shared_server.port) as client:
        client.set(f"{prefix}:meta", "x")
    with pytest.raises(DataError, match="WRONGTYPE|wrong kind"):
        make_store()


def test_a_closed_store_says_so(make_store):
    store = make_store()
    store.close()
    for use in (store.ping, store.count_users, lambda: store.append([event()])):
        with pytest.raises(DataError, match="closed"):
            use()


def test_the_server_is_named_by_the_recipe_or_the_environment(
    shared_server, prefix, tmp_path, monkeypatch
):
    monkeypatch.delenv("RAYCOMMEND_REDIS_URL", raising=False)
    with pytest.raises(DataError, match="serve.state.url") as error:
        open_state(State(backend="redis"), tmp_path / "unused")
    assert "RAYCOMMEND_REDIS_URL" in error.value.fix
    monkeypatch.setenv("RAYCOMMEND_REDIS_URL", shared_server.url)
    store = open_state(State(backend="redis", prefix=prefix), tmp_path / "unused")
    assert isinstance(store, RedisState)
    store.close()
    monkeypatch.setenv("RAYCOMMEND_REDIS_URL", "redis://127.0.0.1:1")
    open_state(
        State(backend="redis", prefix=prefix, url=shared_server.url), tmp_path / "unused"
    ).close()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    for module in ("recsys.state.redis.users", "recsys.state.redis.connection"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(DataError, match="redis") as error:
        open_state(State(backend="redis", url="redis://127.0.0.1:1"), tmp_path / "unused")
    assert "raycommend[redis]" in error.value.fix
