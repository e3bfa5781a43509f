"""A folder and a location with the same files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from object_store import ObjectStore

from recsys.errors import StorageError
from recsys.storage.location import Location
from recsys.storage.mirror import Mirror


@pytest.fixture
def mirror(store: ObjectStore, tmp_path: Path) -> Mirror:
    return Mirror(Location(f"{store.uri}/m"), tmp_path / "here")


def write(mirror: Mirror, name: str, text: str) -> None:
    path = mirror.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(".aside").write_text(text)
    path.with_name(".aside").replace(path)


def here(mirror: Mirror) -> dict[str, str]:
    return {name: (mirror.folder / name).read_text() for name in mirror._names()}


def there(store: ObjectStore) -> dict[str, str]:
    return {key.removeprefix("m/"): store.read(key).decode() for key in store.stored("m/")}


def test_each_side_gets_what_the_other_has(store: ObjectStore, mirror: Mirror) -> None:
    store.write("m/sub/a", b"1")
    store.write("m/b", b"2")
    mirror.pull()
    assert here(mirror) == {"sub/a": "1", "b": "2"}
    write(mirror, "new", "3")
    write(mirror, "b", "4")
    (mirror.folder / "sub/a").unlink()
    store.write("m/meanwhile", b"5")
    mirror.push()
    assert there(store) == {"b": "4", "new": "3", "meanwhile": "5"}
    store.client.delete_object(Bucket="shop", Key="m/new")
    store.write("m/b", b"6")
    mirror.pull()
    assert here(mirror) == there(store) == {"b": "6", "meanwhile": "5"}


def test_only_what_changed_is_copied(store: ObjectStore, mirror: Mirror) -> None:
    store.write("m/a", b"1")
    for _ in range(2):
        mirror.pull()
        mirror.push()
    copies = [each for each in store.requests if each[1] == "/shop/m/a"]
    assert [method for method, _ in copies].count("GET") == 1
    assert [method for method, _ in copies].count("PUT") == 1, "of the test"


def test_new_files_are_there_before_others_are_deleted(store: ObjectStore, mirror: Mirror) -> None:
    store.write("m/a", b"1")
    mirror.pull()
    (mirror.folder / "a").unlink()
    write(mirror, "b", "1")
    with (
        store.failing(lambda method, path: method == "DELETE" or "delete" in path),
        pytest.raises(StorageError),
    ):
        mirror.push()
    assert there(store) == {"a": "1", "b": "1"}
    mirror.push()
    assert there(store) == {"b": "1"}


def test_a_file_that_goes_while_it_is_pulled_is_left_out(
    store: ObjectStore, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("m/a", b"1")
    store.write("m/b", b"2")
    tags = Location.tags

    def late(location: Location) -> dict[str, str]:
        found = tags(location)
        store.client.delete_object(Bucket="shop", Key="m/a")
        return found

    monkeypatch.setattr(Location, "tags", late)
    mirror.pull()
    assert here(mirror) == {"b": "2"}


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}'])
def test_a_damaged_record_is_made_anew(store: ObjectStore, mirror: Mirror, text: str) -> None:
    store.write("m/a", b"1")
    mirror.pull()
    (mirror.folder / ".mirror.json").write_text(text)
    mirror.pull()
    assert here(mirror) == {"a": "1"}
    assert list(json.loads((mirror.folder / ".mirror.json").read_text())) == ["a"]
