from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys.storage.computed import Arrays, computed_once

ARRAYS: Arrays = {
    "rows": np.arange(6).reshape(2, 3),
    "kept": np.array([True, False]),
    "none": np.zeros((0, 4), dtype=np.float32),
    "turned": np.arange(6.0).reshape(2, 3).T,
}


def never() -> Arrays:
    raise AssertionError("they are there")


def test_they_are_made_once(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "arrays.safetensors"
    for make in (lambda: ARRAYS, never):
        found = computed_once(path, make)
        assert found.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("place", [0, 9, 40, -1])
def test_a_damaged_file_is_made_anew(place: int, tmp_path: Path) -> None:
    path = tmp_path / "arrays.safetensors"
    computed_once(path, lambda: ARRAYS)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[place] ^= 1
    path.write_bytes(damaged)
    computed_once(path, lambda: ARRAYS)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-3])
    computed_once(path, lambda: ARRAYS)
    assert path.read_bytes() == whole


def test_what_one_changes_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "arrays.safetensors"
    one, other = (computed_once(path, lambda: ARRAYS) for _ in range(2))
    one["rows"][0, 0] = 7
    assert other["rows"][0, 0] == computed_once(path, never)["rows"][0, 0] == 0


def test_what_cannot_be_made_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        computed_once(tmp_path / "arrays.safetensors", never)
    assert not list(tmp_path.iterdir())
