"""Writes that only one of several writers makes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from object_store import ObjectStore

from recsys.errors import StorageError
from recsys.storage import conditional
from recsys.storage.conditional import create, locked, takes_conditions
from recsys.storage.location import Location


@pytest.fixture
def place(store: ObjectStore) -> Location:
    conditional.takes_conditions.cache_clear()
    return Location(f"{store.uri}/registry")


def at_once(number: int, work: Callable[[int], Any]) -> list[Any]:
    """What each of several threads returns or raises."""
    found: list[Any] = [None] * number
    gate = threading.Barrier(number)

    def run(which: int) -> None:
        gate.wait()
        try:
            found[which] = work(which)
        except StorageError as error:
            found[which] = error

    threads = [threading.Thread(target=run, args=[which]) for which in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_a_store_with_conditions_is_found_out(store: ObjectStore, place: Location) -> None:
    assert takes_conditions(place)
    assert store.stored() == []


def test_one_of_several_writers_creates(place: Location) -> None:
    takes_conditions(place)
    done = at_once(8, lambda which: create(Location(str(place)), "x", f"{which}".encode()))
    assert done.count(True) == 1
    assert place.read("x") == str(done.index(True)).encode()


def test_without_conditions_a_lock_stands_in(
    store: ObjectStore, place: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that leaves `If-None-Match` out without a word."""
    answer = store._app.__class__.__call__

    def forgetful(app: Any, environ: dict[str, Any], start_response: Any) -> Any:
        environ.pop("HTTP_IF_NONE_MATCH", None)
        return answer(app, environ, start_response)

    monkeypatch.setattr(store._app.__class__, "__call__", forgetful)
    assert not takes_conditions(place)
    done = at_once(4, lambda which: create(Location(str(place)), "x", f"{which}".encode()))
    assert done.count(True) <= 1, done
    if True not in done:  # each saw another: all were told
        assert all(isinstance(each, StorageError) for each in done)
        assert create(place, "x", b"later")
    assert not create(place, "x", b"again")
    assert store.stored() == ["registry/x"], "no lock is left"


class TestLock:
    def test_it_has_an_owner_and_keeps_others_out(
        self, store: ObjectStore, place: Location
    ) -> None:
        with locked(place, "run") as lease:
            (key,) = store.stored()
            told = json.loads(store.read(key))
            assert key.startswith("registry/run.lock/") and told["until"] > time.time() + 30
            with (
                pytest.raises(StorageError) as refused,
                locked(Location(str(place)), "run"),
            ):
                pass
            assert f"{place}: in use by {told['owner']} (got 'run.lock')" in str(refused.value)
            assert "run the same command again" in str(refused.value)
            with locked(place, "other"):
                pass
            lease.must_hold()
            assert store.stored() == [key]
        assert store.stored() == []
        with locked(place, "run"):
            pass

    def test_that_of_a_dead_owner_ends(self, store: ObjectStore, place: Location) -> None:
        def left(until: float) -> None:
            told = {"owner": "process 1 on gone", "until": until}
            store.write("registry/run.lock/dead.json", json.dumps(told).encode())

        left(time.time())  # clocks differ
        with pytest.raises(StorageError, match="in use by process 1 on gone"), locked(place, "run"):
            pass
        left(time.time() - conditional.CLOCKS_S - 1)
        with locked(place, "run"):
            assert len(store.stored()) == 1

    @pytest.mark.slow
    def test_it_is_renewed_and_one_that_cannot_be_is_lost(
        self, store: ObjectStore, place: Location, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(conditional, "LASTS_S", 0.9)
        monkeypatch.setattr(conditional, "CLOCKS_S", 0.0)
        with locked(place, "run") as lease:
            time.sleep(2)
            lease.must_hold()
            with store.failing(lambda method, path: method == "PUT"):
                time.sleep(1.5)
                with pytest.raises(StorageError, match="the lock has ended"):
                    lease.must_hold()

    def test_what_is_no_lock_is_told(self, store: ObjectStore, place: Location) -> None:
        store.write("registry/run.lock/x.json", b"[]")
        with pytest.raises(StorageError, match="this is no lock"), locked(place, "run"):
            pass
