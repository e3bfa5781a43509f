"""Square sparse matrices on disk, as plain NumPy files that can be memory-mapped."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.errors import DataError, RaycommendError
from recsys.storage.reading import map_array, reading

_PARTS: Final = ("data", "indices", "indptr")


def matrix_files(name: str) -> list[str]:
    """Names of the files that `save_matrix` writes."""
    return [f"{name}.{part}.npy" for part in _PARTS]


def save_matrix(folder: Path, name: str, matrix: sparse.csr_array) -> None:
    """Write a square CSR matrix as three NumPy files."""
    # One type for both: SciPy would copy the one it has to widen.
    places = np.int32 if matrix.nnz < 2**31 else np.int64
    for part in _PARTS:
        kind = np.float32 if part == "data" else places
        np.save(folder / f"{name}.{part}.npy", getattr(matrix, part).astype(kind))


def write_matrix(
    folder: Path,
    name: str,
    entries: Iterable[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]],
    size: int,
    num_entries: int,
) -> None:
    """Write what `save_matrix` would, some rows at a time.

    Args:
        folder: of the files.
        name: of the matrix.
        entries: rows, columns and values; sorted, within each and from one to the next.
        size: rows, and columns.
        num_entries: of all together.
    """
    places = np.dtype(np.int32 if num_entries < 2**31 else np.int64)
    kinds = {"data": np.dtype(np.float32), "indices": places}
    lengths = np.zeros(size + 1, dtype=np.int64)
    with ExitStack() as stack:
        files = {}
        for part, kind in kinds.items():
            files[part] = stack.enter_context((folder / f"{name}.{part}.npy").open("wb"))
            header = {"descr": kind.str, "fortran_order": False, "shape": (num_entries,)}
            np.lib.format.write_array_header_1_0(files[part], header)
        for rows, columns, values in entries:
            found, counts = np.unique(rows, return_counts=True)
            lengths[1 + found] += counts
            files["data"].write(values.astype(kinds["data"]).tobytes())
            files["indices"].write(columns.astype(places).tobytes())
    np.save(folder / f"{name}.indptr.npy", np.cumsum(lengths).astype(places))


def open_matrix(
    folder: Path, name: str, fix: str, error: type[RaycommendError] = DataError
) -> sparse.csr_array:
    """Read what `save_matrix` wrote, memory-mapped.

    Args:
        folder: of the files.
        name: of the matrix.
        fix: what to do if it is broken.
        error: class of the errors.

    Raises:
        error: a file is missing or broken. All of it is checked: SciPy takes places for granted
            and reads past the arrays where they are wrong.
    """
    paths = [folder / f"{name}.{part}.npy" for part in _PARTS]
    data = map_array(paths[0], fix, np.float32, 1, error)
    indices, indptr = (map_array(path, fix, (np.int32, np.int64), 1, error) for path in paths[1:])
    with reading(paths[2], fix, error):
        size = len(indptr) - 1
        if size < 0 or indptr[0] or indptr[-1] != len(data):
            raise ValueError(f"no row bounds of {len(data)} values")
        if (np.diff(indptr) < 0).any():
            raise ValueError("row bounds that fall")
    with reading(paths[1], fix, error):
        if len(indices) != len(data) or indices.dtype != indptr.dtype:
            raise ValueError(f"{len(indices)} places of {len(data)} values")
        if len(indices) and (indices.min() < 0 or indices.max() >= size):
            raise ValueError(f"a column outside 0..{size - 1}")
    with reading(paths[0], fix, error):
        if not np.isfinite(data).all():
            raise ValueError("weights that are not finite")
        return sparse.csr_array((data, indices, indptr), shape=(size, size), copy=False)
