from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from damage import wrong_values

from recsys.storage.seals import (
    SEAL,
    file_hashes,
    file_sha256,
    is_sealed,
    json_sha256,
    sealed,
    text_sha256,
)

DATA = {"b": [1, {"d": 2.5, "c": None}], "a": "ä"}


def test_hashes_are_those_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes("ä".encode())
    assert file_sha256(path) == hashlib.sha256(b"\xc3\xa4").hexdigest()
    assert text_sha256("ä") == file_sha256(path)[:16]
    told = b'{"a": "\\u00e4", "b": [1, {"c": null, "d": 2.5}]}'
    assert json_sha256(DATA) == hashlib.sha256(told).hexdigest()


def test_files_of_a_folder_are_named_by_their_place(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("b.txt", "inner/a.txt", "a.bin"):
        (tmp_path / name).write_text(name)
    everything = file_hashes(tmp_path)
    assert list(everything) == ["a.bin", "b.txt", "inner/a.txt"]
    assert everything["inner/a.txt"] == hashlib.sha256(b"inner/a.txt").hexdigest()
    assert list(file_hashes(tmp_path, "*.txt")) == ["b.txt"]


def test_a_seal_is_over_all_but_itself_in_any_order() -> None:
    once = sealed(DATA)
    assert {**once, SEAL: None} == {**DATA, SEAL: None}
    assert list(once) == ["b", "a", SEAL]
    assert sealed(once) == once == sealed(dict(reversed(DATA.items())))


def test_a_seal_fits_nothing_else() -> None:
    once = sealed(DATA)
    assert is_sealed(once)
    changed = [data for _, data in wrong_values(once) if isinstance(data, dict)]
    assert len(changed) >= 30
    assert not any(is_sealed(data) for data in changed)
    assert not is_sealed(DATA)


@pytest.mark.parametrize("seal", [None, "", 5, []])
def test_a_wrong_seal_does_not_fit(seal: object) -> None:
    assert not is_sealed({**DATA, SEAL: seal})
