"""Folders that are published whole, whatever happens to their writer."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from object_store import ObjectStore

from recsys.errors import StorageError
from recsys.storage import published
from recsys.storage.location import Location
from recsys.storage.published import MANIFEST, STALE_S, manifest_of, publish


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def place(store: ObjectStore) -> Location:
    return Location(f"{store.uri}/bundle")


def test_a_manifest_names_every_part(store: ObjectStore, place: Location, tmp_path: Path) -> None:
    assert manifest_of(place) is None
    folder = write(tmp_path / "f", a="1", sub__b="22")
    (folder / ".lock").touch()
    manifest = publish(folder, place)
    assert manifest == manifest_of(place)
    assert {name: part.size for name, part in manifest.files.items()} == {"a": 1, "sub/b": 2}
    assert store.stored("bundle") == [
        f"bundle/{manifest.attempt}/a", f"bundle/{manifest.attempt}/sub/b", "bundle/manifest.json",
    ]  # fmt: skip
    assert store.read(f"bundle/{manifest.part('sub/b')}") == b"22"


def test_the_same_folder_is_not_written_twice(
    store: ObjectStore, place: Location, tmp_path: Path
) -> None:
    first = publish(write(tmp_path / "f", a="1"), place)
    store.requests.clear()
    assert publish(tmp_path / "f", place) == first
    assert not [each for each in store.requests if each[0] == "PUT"]
    write(tmp_path / "f", a="2")
    second = publish(tmp_path / "f", place)
    assert second.digest != first.digest
    assert store.read(f"bundle/{first.part('a')}") == b"1", "readers of the manifest before"


def test_what_dead_writers_left_goes_when_it_is_old(
    store: ObjectStore, place: Location, tmp_path: Path
) -> None:
    now = dt.datetime.now(dt.UTC)
    for age_s, name in ((STALE_S + 60, "old"), (STALE_S - 60, "young")):
        began = now - dt.timedelta(seconds=age_s)
        store.write(f"bundle/{began:%Y%m%dT%H%M%SZ}-{'0' * 32}/{name}", b"")
    store.write("bundle/not-ours", b"")
    publish(write(tmp_path / "f", a="1"), place)
    assert [key.rpartition("/")[2] for key in store.stored("bundle")] == [
        "young", "a", "manifest.json", "not-ours",
    ]  # fmt: skip


def test_a_store_that_fails_in_the_middle_leaves_the_folder_before(
    store: ObjectStore, place: Location, tmp_path: Path
) -> None:
    before = publish(write(tmp_path / "f", a="1", b="1"), place)
    write(tmp_path / "f", a="2", b="2")
    for last in ("/b", f"/{MANIFEST}"):
        with (
            store.failing(lambda method, path, last=last: method == "PUT" and path.endswith(last)),
            pytest.raises(StorageError, match="does not answer"),
        ):
            publish(tmp_path / "f", place)
        assert manifest_of(place) == before
    with store.failing(lambda method, path: method == "PUT", times=4):
        assert publish(tmp_path / "f", place).digest != before.digest


@pytest.mark.chaos
@pytest.mark.parametrize("num_parts", [0, 1, 3])
def test_a_writer_that_is_killed_leaves_the_folder_before(
    store: ObjectStore, place: Location, tmp_path: Path, num_parts: int
) -> None:
    before = publish(write(tmp_path / "f", a="1"), place)
    write(tmp_path / "f", **{f"part{number}": "2" for number in range(6)})
    code = (
        "import sys; from pathlib import Path; from recsys.storage import published; "
        "published.COPIES = 1; from recsys.storage.location import Location; "
        "published.publish(Path(sys.argv[1]), Location(sys.argv[2]))"
    )
    store.requests.clear()

    def is_put(method: str, path: str) -> bool:
        return method == "PUT" and "part" in path

    with store.slow(lambda *request: is_put(*request) and num_done() > num_parts, pause_s=60):

        def num_done() -> int:
            return sum(is_put(*request) for request in store.requests)

        writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "f"), str(place)])
        deadline = time.monotonic() + 60
        while num_done() <= num_parts:
            assert writer.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    assert manifest_of(place) == before
    after = publish(tmp_path / "f", place)
    assert manifest_of(place) == after and len(after.files) == 7


@pytest.mark.parametrize("damage", ["", "{}", "[1]", "seal", "path"])
def test_a_damaged_manifest_is_told_and_replaced(
    store: ObjectStore, place: Location, tmp_path: Path, damage: str
) -> None:
    publish(write(tmp_path / "f", a="1"), place)
    text = store.read(f"bundle/{MANIFEST}").decode()
    if damage == "seal":
        damage = text.replace('"size": 1', '"size": 2')
    elif damage == "path":
        data = json.loads(text)
        data["files"]["../x"] = data["files"].pop("a")
        damage = json.dumps(published.sealed(data))
    store.write(f"bundle/{MANIFEST}", damage.encode())
    with pytest.raises(StorageError, match="no manifest of format 1, or a damaged one"):
        manifest_of(place)
    publish(tmp_path / "f", place)
    assert set(manifest_of(place).files) == {"a"}  # type: ignore[union-attr]
