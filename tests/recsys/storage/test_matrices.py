from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from recsys.storage.matrices import matrix_files, save_matrix, write_matrix


@pytest.mark.parametrize("bounds", [(0, 9), (0, 1, 4, 9), tuple(range(10))])
def test_some_rows_at_a_time_are_the_same_bytes(tmp_path: Path, bounds: tuple[int, ...]) -> None:
    matrix = sparse.random_array((9, 9), density=0.3, rng=0, format="csr", dtype=np.float32)
    matrix.sort_indices()
    for folder in ("whole", "parts"):
        (tmp_path / folder).mkdir()
    save_matrix(tmp_path / "whole", "m", matrix)
    entries = []
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        part = matrix[low:high].tocoo()
        entries.append((part.row + low, part.col, part.data))
    write_matrix(tmp_path / "parts", "m", entries, 9, matrix.nnz)
    for name in matrix_files("m"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
