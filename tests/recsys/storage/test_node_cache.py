"""A node's copies of published folders: whole, verified, bounded, shared by processes."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from object_store import ObjectStore

from recsys.errors import NoSpaceError, StorageError
from recsys.storage import node_cache
from recsys.storage.location import Location
from recsys.storage.node_cache import Fetched, NodeCache
from recsys.storage.published import manifest_of, publish

SIZE = 100_000


@pytest.fixture
def place(store: ObjectStore, tmp_path: Path) -> Location:
    """A published folder of four files."""
    return published(store, tmp_path, "one")


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return NodeCache(tmp_path / "cache", 10 * SIZE)


def published(store: ObjectStore, tmp_path: Path, name: str, salt: str = "") -> Location:
    folder = tmp_path / "published" / name
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    for part in ("a", "b", "c", "sub/d"):
        (folder / part).write_bytes(content(name + salt, part))
    place = Location(f"{store.uri}/{name}")
    publish(folder, place)
    return place


def content(name: str, part: str) -> bytes:
    return f"{name} {part} ".encode().ljust(SIZE, b".")


def is_get(method: str, path: str) -> bool:
    return method == "GET" and "manifest" not in path


def num_gets(store: ObjectStore) -> int:
    return sum(is_get(*request) for request in store.requests)


def test_a_folder_is_fetched_once(store: ObjectStore, place: Location, cache: NodeCache) -> None:
    store.requests.clear()
    first = cache.fetch(place)
    assert num_gets(store) == 4
    assert (first.folder / "sub/d").read_bytes() == content("one", "sub/d")
    assert cache.fetch(place).folder == first.folder
    assert num_gets(store) == 4
    assert first.folder.name == manifest_of(place).digest  # type: ignore[union-attr]


def test_only_some_files_are_fetched(store: ObjectStore, place: Location, cache: NodeCache) -> None:
    store.requests.clear()
    some = cache.fetch(place, lambda name: name in ("a", "sub/d"))
    assert [p.name for p in sorted(some.folder.rglob("*")) if p.is_file()] == ["a", "d"]
    cache.fetch(place)
    assert num_gets(store) == 4


def test_what_comes_damaged_is_asked_for_again(
    store: ObjectStore, place: Location, cache: NodeCache
) -> None:
    with store.truncating(is_get, times=2):
        cache.fetch(place)
    assert (cache.fetch(place).folder / "a").read_bytes() == content("one", "a")


def test_what_stays_damaged_is_told_and_not_seen(
    store: ObjectStore, place: Location, cache: NodeCache
) -> None:
    part = f"one/{manifest_of(place).part('b')}"  # type: ignore[union-attr]
    store.write(part, content("one", "x"))
    with pytest.raises(StorageError, match="not what was published.*run its job again"):
        cache.fetch(place)
    (folder,) = [path for path in cache.folder.iterdir() if path.is_dir()]
    assert not (folder / "b").exists() and not list(folder.glob(".*"))
    store.client.delete_object(Bucket="shop", Key=part)
    with pytest.raises(StorageError, match="a part is missing that the manifest names"):
        cache.fetch(place)


def test_a_cache_that_takes_no_file_is_told(place: Location, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"storage.cache_dir. the folder of this node's cache"):
        NodeCache(tmp_path / "file" / "cache", 10**6).fetch(place)


def test_nothing_published_is_told(store: ObjectStore, cache: NodeCache) -> None:
    with pytest.raises(StorageError, match="nothing is published here: there is no manifest.json"):
        cache.fetch(Location(f"{store.uri}/nothing"))


def test_a_folder_that_is_published_anew_meanwhile_is_fetched_anew(
    store: ObjectStore, place: Location, cache: NodeCache, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    before = manifest_of(place)
    assert before is not None
    published(store, tmp_path, "one", salt="+")
    for name in before.files:
        store.client.delete_object(Bucket="shop", Key=f"one/{before.part(name)}")
    told = [before]
    monkeypatch.setattr(
        node_cache, "manifest_of", lambda place: told.pop() if told else manifest_of(place)
    )
    assert (cache.fetch(place).folder / "a").read_bytes() == content("one+", "a")


class TestBound:
    def test_the_least_recently_used_goes_unless_it_is_held(
        self, store: ObjectStore, tmp_path: Path, cache: NodeCache
    ) -> None:
        places = {name: published(store, tmp_path, name) for name in ("one", "two", "three")}
        held = cache.fetch(places["one"])
        two = cache.fetch(places["two"]).folder
        os.utime(cache.folder / f"{held.folder.name}.used", (1, 1))
        gc.collect()
        three = cache.fetch(places["three"])
        assert held.folder.exists() and three.folder.exists() and not two.exists()
        held.release()
        assert cache.fetch(places["two"]).folder.exists()
        assert not held.folder.exists() and three.folder.exists()

    def test_what_does_not_fit_is_told(
        self, store: ObjectStore, tmp_path: Path, cache: NodeCache
    ) -> None:
        held: list[Fetched] = [cache.fetch(published(store, tmp_path, x)) for x in ("one", "two")]
        with pytest.raises(StorageError) as told:
            cache.fetch(published(store, tmp_path, "three"))
        assert "[storage.cache_gb] the cache of this node is too small" in str(told.value)
        assert "set storage.cache_dir to a folder on a larger disk" in str(told.value)
        held.clear()
        gc.collect()
        assert cache.fetch(Location(f"{store.uri}/three")).folder.exists()

    def test_a_full_disk_is_told_and_the_same_call_goes_on(
        self, store: ObjectStore, tmp_path: Path, place: Location
    ) -> None:
        from small_disk import fill, mounted

        with mounted(tmp_path / "disk", megabytes=1) as disk:
            cache = NodeCache(disk / "cache", 10 * SIZE)
            other = fill(disk, leave=2 * SIZE)
            with pytest.raises(NoSpaceError) as told:
                cache.fetch(place)
            assert str(told.value) == (
                f"{disk}/cache: [storage.cache_dir] no space is left on the disk of this node's "
                "cache, or none of its quota. Fix: make room there, or set it to a folder on "
                "another disk; then the same command goes on"
            )
            assert not list(cache.folder.rglob(".*.part"))
            other.unlink()
            assert (cache.fetch(place).folder / "c").read_bytes() == content("one", "c")


CODE = """
import sys, time
from pathlib import Path
from recsys.storage.location import Location
from recsys.storage import node_cache
from recsys.storage.node_cache import NodeCache
got = NodeCache(Path(sys.argv[1]), 10**9).fetch(Location(sys.argv[2]))
print(sum(path.stat().st_size for path in got.folder.rglob("*") if path.is_file()), flush=True)
sys.stdin.read()
"""


def fetching(cache: NodeCache, place: Location) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CODE, str(cache.folder), str(place)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_at_once_copy_once(
    store: ObjectStore, place: Location, cache: NodeCache
) -> None:
    store.requests.clear()
    with store.slow(is_get, pause_s=0.05):
        processes = [fetching(cache, place) for _ in range(2)]
        read = [process.stdout.readline().strip() for process in processes if process.stdout]
    assert read == [str(4 * SIZE)] * 2
    assert num_gets(store) == 4
    (folder,) = [path for path in cache.folder.iterdir() if path.is_dir()]
    assert NodeCache(cache.folder, 0).trim() == 4 * SIZE, "the processes hold it"
    for process in processes:
        process.communicate("")
    assert NodeCache(cache.folder, 0).trim() == 0 and not folder.exists()


@pytest.mark.chaos
def test_a_process_that_is_killed_leaves_nothing_half(
    store: ObjectStore, place: Location, cache: NodeCache
) -> None:
    store.requests.clear()
    with store.slow(lambda m, p: is_get(m, p) and not p.endswith("/a"), pause_s=5):
        process = fetching(cache, place)
        deadline = time.monotonic() + 60
        while not list(cache.folder.glob("*/a")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    got = cache.fetch(place)
    assert not list(got.folder.glob(".*"))
    for name in ("a", "b", "c", "sub/d"):
        assert (got.folder / name).read_bytes() == content("one", name)
