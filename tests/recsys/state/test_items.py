"""What holds for every store of added items."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from recsys.config import State
from recsys.errors import DataError
from recsys.state import SqliteState, open_items
from recsys.state.items import MemoryItems
from recsys.state.redis_items import RedisItems
from recsys.state.sqlite_items import SqliteItems

ONE, TWO, THREE = (np.full(4, value, dtype=np.float32) for value in (1, 2, 3))


@pytest.fixture(params=["memory", "sqlite", "redis"])
def open_again(request, tmp_path):
    """Open the same store, as another replica does; in memory there is but one."""
    is_redis = request.param == "redis"
    url = request.getfixturevalue("shared_server").url if is_redis else None
    state = State(backend=request.param, url=url, prefix=uuid.uuid4().hex)
    made = []

    def open_one():
        if made and request.param == "memory":
            return made[0]
        made.append(open_items(state, tmp_path / "state.sqlite"))
        return made[-1]

    yield open_one
    for store in made:
        store.close()


@pytest.fixture
def store(open_again):
    return open_again()


def held(store, model="a", since=0):
    """`{id: (fields, first number of the vector)}` of what was changed."""
    return {
        change.item_id: (change.fields, None if change.vector is None else change.vector[0])
        for change in store.changes(since, model)[1]
    }


def test_a_fresh_store_is_empty(store):
    assert store.version() == 0
    assert store.changes(0, "a") == (0, [])
    assert store.remove("x") is False
    assert store.version() == 0


def test_what_was_put_is_there_for_others_and_after(store, open_again):
    assert store.put([("x", '{"n": 1}'), ("ö:y\n", "{}")], "a", [ONE, TWO]) == 2
    other = open_again()
    assert held(other) == {"x": ('{"n": 1}', 1), "ö:y\n": ("{}", 2)}
    assert other.version() == store.version() > 0
    (change,) = [c for c in other.changes(0, "a")[1] if c.item_id == "x"]
    np.testing.assert_array_equal(change.vector, ONE)


def test_only_what_changed_is_told(store):
    store.put([("x", "1"), ("y", "1")], "a", [ONE, ONE])
    first, _ = store.changes(0, "a")
    assert store.changes(first, "a") == (first, [])
    assert store.put([("x", "1"), ("y", "2"), ("z", "1")], "a", [ONE, TWO, THREE]) == 2
    assert held(store, since=first) == {"y": ("2", 2), "z": ("1", 3)}
    assert store.put([("x", "1")], "a", [ONE]) == 0
    second, _ = store.changes(first, "a")
    assert second == store.version() > first


def test_a_removed_item_is_told_once_and_may_come_back(store):
    store.put([("x", "1"), ("y", "1")], "a", [ONE, ONE])
    first = store.version()
    assert store.remove("x") is True
    assert store.remove("x") is False
    assert held(store, since=first) == {"x": (None, None)}
    assert store.put([("x", "1")], "a", [TWO]) == 1
    assert held(store, since=first) == {"x": ("1", 2)}


def test_vectors_are_of_one_model_and_one_text(store):
    store.put([("x", "1"), ("y", "1")], "a", [ONE, ONE])
    assert held(store, "b") == {"x": ("1", None), "y": ("1", None)}
    changes = [replace(change, vector=TWO) for change in store.changes(0, "b")[1]]
    store.put([("y", "2")], "a", [ONE])  # since then its text is another
    store.add_vectors(changes, "b", keep=["a"])
    assert held(store, "b") == {"x": ("1", 2), "y": ("2", None)}
    assert held(store, "a") == {"x": ("1", 1), "y": ("2", 1)}
    store.add_vectors([], "c", keep=["b"])
    assert held(store, "a") == {"x": ("1", None), "y": ("2", None)}
    assert held(store, "b")["x"] == ("1", 2)


def test_several_writers_lose_nothing(store, open_again):
    stores = [store, open_again(), open_again()]

    def write(number):
        stores[number % 3].put([(f"{number}", "1"), ("shared", str(number))], "a", [ONE, TWO])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(30)))
    found = held(stores[1])
    assert found.keys() == {*map(str, range(30)), "shared"}
    assert store.version() == 30


def test_the_file_lies_beside_the_users(tmp_path):
    open_items(State(backend="sqlite"), tmp_path / "state.sqlite").close()
    assert (tmp_path / "state.items.sqlite").is_file()
    assert isinstance(open_items(State(backend="memory"), tmp_path), MemoryItems)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "x.sqlite"
    path.write_text("no database at all, but a text that is long enough to be looked at" * 20)
    with pytest.raises(DataError, match=r"x\.sqlite"):
        SqliteItems(path)
    SqliteState(tmp_path / "users.sqlite", 5).close()
    with pytest.raises(DataError, match="not a store of added items"):
        SqliteItems(tmp_path / "users.sqlite")


def test_a_server_that_is_gone_is_named_without_its_password(make_server):
    server = make_server("--requirepass", "s3cret")
    store = RedisItems(f"redis://:s3cret@127.0.0.1:{server.port}/0", "p")
    store.put([("x", "1")], "a", [ONE])
    server.stop()
    with pytest.raises(DataError, match="cannot be reached") as caught:
        store.version()
    assert "s3cret" not in str(caught.value)
