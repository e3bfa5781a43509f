"""A run's folder on several nodes, which see nothing but the store in common."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from object_store import ObjectStore, impatient

from recsys.errors import DataError, StorageError
from recsys.storage.location import Location
from recsys.storage.node_cache import NodeCache
from recsys.storage.shared import SharedFolder


def node(folder: Path, name: str, max_bytes: int = 10**9) -> SharedFolder:
    """The run as a node with a disk of its own sees it."""
    cache = NodeCache(folder / name, max_bytes)
    return SharedFolder(folder / name / "runs" / "demo", Location("s3://shop/demo"), cache)


@pytest.fixture
def one(store: ObjectStore, tmp_path: Path) -> SharedFolder:
    return node(tmp_path, "one")


@pytest.fixture
def two(store: ObjectStore, tmp_path: Path) -> SharedFolder:
    return node(tmp_path, "two")


def write(shared: SharedFolder, name: str, text: str) -> None:
    with shared.whole(shared.folder / name) as out:
        (out / "sub").mkdir()
        (out / "sub" / "a").write_text(text)


def read(shared: SharedFolder, name: str) -> str | None:
    path = shared.folder / name
    shared.bring(path)
    return (path / "sub" / "a").read_text() if path.exists() else None


def test_a_folder_is_seen_by_all_nodes_as_it_was_written_last(
    one: SharedFolder, two: SharedFolder
) -> None:
    assert read(two, "bundle") is None
    write(one, "bundle", "first")
    assert read(two, "bundle") == read(one, "bundle") == "first"
    opened = (two.folder / "bundle" / "sub" / "a").open()
    write(one, "bundle", "second")
    assert read(two, "bundle") == "second"
    assert opened.read() == "first", "what is open stays"
    assert two.cache is not None and len(list(two.cache.folder.glob("*/sub"))) == 1
    write(two, "bundle", "third")
    assert read(one, "bundle") == "third"


def test_a_folder_that_was_begun_and_never_published_is_not_here(one: SharedFolder) -> None:
    with pytest.raises(KeyboardInterrupt), one.whole(one.folder / "bundle") as out:
        (out / "a").write_text("half")
        raise KeyboardInterrupt
    assert list(one.folder.iterdir()) == []
    (one.folder / "bundle").mkdir()
    assert read(one, "bundle") is None


def test_where_the_store_fails_the_folder_of_before_is_left(
    store: ObjectStore, one: SharedFolder, two: SharedFolder
) -> None:
    write(one, "bundle", "first")
    with store.failing(lambda method, path: method == "PUT"), pytest.raises(StorageError):
        write(one, "bundle", "second")
    assert read(one, "bundle") == read(two, "bundle") == "first"


def test_files_of_a_folder_may_be_replaced(one: SharedFolder, two: SharedFolder) -> None:
    write(one, "bundle", "first")
    assert read(two, "bundle") == "first"
    with two.changing(two.folder / "bundle") as folder:
        aside = folder / "aside"
        aside.write_text("noted")
        aside.replace(folder / "sub" / "a")
    assert read(one, "bundle") == "noted"
    with one.changing(one.folder / "bundle") as folder:
        assert (folder / "sub" / "a").read_text() == "noted"


def test_all_folders_below_one_and_no_others(one: SharedFolder, two: SharedFolder) -> None:
    for name in ("run/checkpoint_0001", "run/checkpoint_0002", "run/deeper/checkpoint_0003"):
        write(one, name, name)
    assert two.names(two.folder / "run") == ["checkpoint_0001", "checkpoint_0002"]
    two.bring_all(two.folder / "run")
    assert sorted(path.name for path in (two.folder / "run").iterdir()) == two.names(
        two.folder / "run"
    )
    one.drop(one.folder / "run" / "checkpoint_0001")
    two.bring_all(two.folder / "run")
    assert [path.name for path in (two.folder / "run").iterdir()] == ["checkpoint_0002"]
    assert not (one.folder / "run" / "checkpoint_0001").exists()
    assert read(one, "run/deeper/checkpoint_0003") == "run/deeper/checkpoint_0003"


def test_what_was_dropped_lies_in_the_cache_no_more(one: SharedFolder) -> None:
    write(one, "run/checkpoint_0001", "weights")
    assert one.cache is not None
    assert list(one.cache.folder.glob("*/sub/a"))
    one.drop(one.folder / "run" / "checkpoint_0001")
    assert not list(one.cache.folder.glob("*/sub/a"))


def test_a_small_file_is_read_without_its_folder(one: SharedFolder, two: SharedFolder) -> None:
    assert two.read(two.folder / "bundle", "sub/a") is None
    write(one, "bundle", "first")
    assert two.read(two.folder / "bundle", "sub/a") == b"first"
    assert not (two.folder / "bundle").exists()


def test_files_that_jobs_hand_in(one: SharedFolder, two: SharedFolder) -> None:
    told, other = (node.folder / "winner.json" for node in (one, two))
    one.folder.mkdir(parents=True)
    told.write_text("{}")
    one.hand_in(told)
    two.bring_files([other, two.folder / "report.json"])
    assert other.read_text() == "{}"
    assert [path.name for path in two.folder.iterdir()] == ["winner.json"]


def test_what_is_in_use_is_not_trimmed_for_another(store: ObjectStore, tmp_path: Path) -> None:
    small = node(tmp_path, "small", max_bytes=1500)
    for name in ("prepared", "bundle"):
        write(node(tmp_path, "one"), name, 1000 * name[0])
    assert read(small, "prepared") == 1000 * "p"
    with pytest.raises(StorageError, match="too small"):
        read(small, "bundle")
    assert (small.folder / "prepared" / "sub" / "a").is_file()


@pytest.mark.parametrize("where", ["folder", "store"])
def test_two_jobs_at_once_are_refused(
    store: ObjectStore, tmp_path: Path, one: SharedFolder, two: SharedFolder, where: str
) -> None:
    if where == "folder":
        one = two = SharedFolder(tmp_path / "run")
    refused = pytest.raises((DataError, StorageError), match="in use")
    with one.locked(), refused, two.locked():
        pass
    with two.locked():
        pass
    assert not one.folder.exists(), "a job that is refused leaves nothing"


def test_a_folder_that_all_nodes_see_needs_nothing(tmp_path: Path) -> None:
    shared = SharedFolder(tmp_path)
    write(shared, "bundle", "first")
    assert read(shared, "bundle") == "first"
    with shared.changing(tmp_path / "bundle") as folder:
        assert folder == tmp_path / "bundle"
    assert shared.read(tmp_path / "bundle", "sub/a") == b"first"
    assert shared.read(tmp_path / "nowhere", "a") is None
    shared.drop(tmp_path / "bundle")
    assert shared.names(tmp_path) == []


def test_a_store_that_is_gone_is_told_at_once(store: ObjectStore, one: SharedFolder) -> None:
    write(one, "bundle", "first")
    store.stop()
    with impatient(), pytest.raises(StorageError, match="does not answer"):
        read(one, "bundle")
    store.start()
    assert read(one, "bundle") == "first"
    assert os.path.islink(one.folder / "bundle")
