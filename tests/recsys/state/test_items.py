"""What holds for every store of added items."""

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from recsys.config import State
from recsys.errors import DataError
from recsys.state import SqliteState, open_items
from recsys.state.items import ItemEdit, MemoryItems, merged
from recsys.state.redis.items import RedisItems
from recsys.state.sqlite.items import SqliteItems

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


def patch(item_id, given, vector=None):
    """What a sender says of an item."""
    return item_id, given, vector


def put(store, patches, model):
    """As the service does: again with what is held now, if that has changed meanwhile."""
    stored = None
    while stored is None:
        known = {change.item_id: change.fields for change in store.changes(0, model)[1]}
        edits = [
            ItemEdit(name, known.get(name), merged(known.get(name), given), vector)
            for name, given, vector in patches
        ]
        stored = store.put(edits, model)
    return stored


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
    assert put(store, [patch("x", {"n": 1}, ONE), patch("ö:y\n", {}, TWO)], "a") == 2
    other = open_again()
    assert held(other) == {"x": ('{"n": 1}', 1), "ö:y\n": ("{}", 2)}
    assert other.version() == store.version() > 0
    (change,) = [c for c in other.changes(0, "a")[1] if c.item_id == "x"]
    np.testing.assert_array_equal(change.vector, ONE)


def test_only_what_changed_is_told(store):
    put(store, [patch("x", {"n": 1}, ONE), patch("y", {"n": 1}, ONE)], "a")
    first, _ = store.changes(0, "a")
    assert store.changes(first, "a") == (first, [])
    again = [patch("x", {"n": 1}, ONE), patch("y", {"n": 2}, TWO), patch("z", {"n": 1}, THREE)]
    assert put(store, again, "a") == 2
    assert held(store, since=first) == {"y": ('{"n": 2}', 2), "z": ('{"n": 1}', 3)}
    assert put(store, [patch("x", {"n": 1}, ONE)], "a") == 0
    second, _ = store.changes(first, "a")
    assert second == store.version() > first


def test_a_removed_item_is_told_once_and_may_come_back(store):
    put(store, [patch("x", {"n": 1}, ONE), patch("y", {"n": 1}, ONE)], "a")
    first = store.version()
    assert store.remove("x") is True
    assert store.remove("x") is False
    assert held(store, since=first) == {"x": (None, None)}
    assert put(store, [patch("x", {"n": 1}, TWO)], "a") == 1
    assert held(store, since=first) == {"x": ('{"n": 1}', 2)}


def test_vectors_are_of_one_model_and_one_text(store):
    put(store, [patch("x", {"n": 1}, ONE), patch("y", {"n": 1}, ONE)], "a")
    assert held(store, "b") == {"x": ('{"n": 1}', None), "y": ('{"n": 1}', None)}
    changes = [replace(change, vector=TWO) for change in store.changes(0, "b")[1]]
    put(store, [patch("y", {"n": 2}, ONE)], "a")  # since then its text is another
    store.add_vectors(changes, "b", keep=["a"])
    assert held(store, "b") == {"x": ('{"n": 1}', 2), "y": ('{"n": 2}', None)}
    assert held(store, "a") == {"x": ('{"n": 1}', 1), "y": ('{"n": 2}', 1)}
    store.add_vectors([], "c", keep=["b"])
    assert held(store, "a") == {"x": ('{"n": 1}', None), "y": ('{"n": 2}', None)}
    assert held(store, "b")["x"] == ('{"n": 1}', 2)


def test_several_writers_lose_nothing(store, open_again):
    stores = [store, open_again(), open_again()]

    def write(number):
        put(
            stores[number % 3],
            [patch(f"{number}", {"n": 1}, ONE), patch("shared", {"n": number}, TWO)],
            "a",
        )

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(30)))
    found = held(stores[1])
    assert found.keys() == {*map(str, range(30)), "shared"}
    assert store.version() == 30


def test_what_is_not_given_stays_and_null_takes_back(store):
    put(store, [patch("x", {"title": "lamp", "price": 9.0}, ONE)], "a")
    assert put(store, [patch("x", {"price": 8.0}, TWO)], "a") == 1
    assert held(store) == {"x": ('{"price": 8.0, "title": "lamp"}', 2)}
    assert put(store, [patch("x", {"price": None, "brand": "acme"}, THREE)], "a") == 1
    assert held(store) == {"x": ('{"brand": "acme", "title": "lamp"}', 3)}
    assert put(store, [patch("x", {"brand": "acme", "colour": None})], "a") == 0


@pytest.mark.parametrize("believed", [None, '{"title": "lump"}'])
def test_who_knows_an_older_state_changes_nothing(store, believed):
    put(store, [patch("x", {"title": "lamp"}, ONE)], "a")
    version = store.version()
    edits = [ItemEdit("y", None, "{}", TWO), ItemEdit("x", believed, '{"price": 8.0}', TWO)]
    assert store.put(edits, "a") is None
    assert (held(store), store.version()) == ({"x": ('{"title": "lamp"}', 1)}, version)
    store.remove("x")
    assert store.put([ItemEdit("x", '{"title": "lamp"}', '{"price": 8.0}', TWO)], "a") is None


def test_writers_of_different_fields_lose_nothing(store, open_again):
    stores = [store, open_again(), open_again()]

    def write(number):
        return put(stores[number % 3], [patch("x", {f"f{number:02}": number})], "a")

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(write, range(30))) == 30
    (change,) = stores[1].changes(0, "a")[1]
    assert json.loads(change.fields) == {f"f{number:02}": number for number in range(30)}


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
    put(store, [patch("x", {"n": 1}, ONE)], "a")
    server.stop()
    with pytest.raises(DataError, match="cannot be reached") as caught:
        store.version()
    assert "s3cret" not in str(caught.value)
