"""What is checked and told when a store is opened: durability, formats, no password."""

import logging
import uuid

import pytest
import redis
from store_events import event, num_new

from recsys.config import State
from recsys.errors import DataError
from recsys.state import Tombstone, open_state
from recsys.state.redis import opening
from recsys.state.redis.opening import FORMAT_VERSION
from recsys.state.redis.users import RedisState

PASSWORD = "not/for messages"
QUOTED = "not%2Ffor%20messages"


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


def test_a_key_of_another_program_is_an_error(shared_server, make_store, prefix):
    with redis.Redis(port=shared_server.port) as client:
        client.set(f"{prefix}:meta", "x")
    with pytest.raises(DataError, match="WRONGTYPE|wrong kind"):
        make_store()


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
