"""What holds for a Redis or Valkey server beyond one process's life."""

import multiprocessing
import random
import signal
import uuid

import numpy as np
import pyarrow as pa
import pytest
import redis
from store_events import event, num_new

from recsys.errors import DataError
from recsys.schema import HISTORIES
from recsys.state import MemoryState, StateEvent
from recsys.state.redis.users import CHUNK, RedisState

SPAWN = multiprocessing.get_context("spawn")


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
        events = [
            event("u", f"{worker}-{number}", timestamp=number),
            event("u", f"both-{number}", timestamp=number),
        ]
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


@pytest.mark.chaos
def test_what_was_accepted_outlives_a_killed_server(make_server, make_store):
    server = make_server("--appendonly", "yes", "--appendfsync", "always")
    store = make_store(url=server.url)
    store.append([event(event_id="accepted")])
    server.stop(signal.SIGKILL)
    server.start()
    assert [e.event_id for e in store.history("u", 10)] == ["accepted"]
    assert num_new(store.append([event(event_id="accepted")])) == 0


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
