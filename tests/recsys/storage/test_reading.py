"""Arrays of files that are written to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys.storage.reading import to_be_changed


@pytest.mark.parametrize("part", [slice(None), slice(None, None, -1), slice(2, None)])
def test_what_is_written_to_a_mapped_array_stays_here(tmp_path: Path, part: slice) -> None:
    path, numbers = tmp_path / "numbers.npy", np.arange(6.0)
    np.save(path, numbers)
    mapped = np.load(path, mmap_mode="r")
    own = to_be_changed(mapped[part])
    np.testing.assert_array_equal(own, numbers[part])
    own[0] = -1
    np.testing.assert_array_equal(mapped, numbers)
