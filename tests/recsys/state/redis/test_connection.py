"""A server that is gone, hangs or lies behind a file; the package that is missing."""

import os
import signal
import sys
import time

import pytest
from store_events import event, num_new

import recsys.state.redis.connection as redis_connection
from recsys.config import State
from recsys.errors import DataError
from recsys.state import open_state
from recsys.state.redis.users import RedisState


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


def test_a_server_is_reached_through_a_file_too(make_server, make_store, tmp_path):
    make_server("--unixsocket", str(tmp_path / "s"))
    assert num_new(make_store(url=f"unix://{tmp_path}/s?db=0").append([event()])) == 1
    with pytest.raises(DataError, match="nowhere"):
        make_store(url=f"unix://{tmp_path}/nowhere")


def test_a_closed_store_says_so(make_store):
    store = make_store()
    store.close()
    for use in (store.ping, store.count_users, lambda: store.append([event()])):
        with pytest.raises(DataError, match="closed"):
            use()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    for module in ("recsys.state.redis.users", "recsys.state.redis.connection"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(DataError, match="redis") as error:
        open_state(State(backend="redis", url="redis://127.0.0.1:1"), tmp_path / "unused")
    assert "raycommend[redis]" in error.value.fix
