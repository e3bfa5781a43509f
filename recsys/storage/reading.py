"""Checked reading of files that another process wrote: errors name the file and the fix.

A reader checks columns, types, shapes and ranges before anything computes with the content. Wrong
values of the right kind are found by checksums only.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import SafetensorError

from recsys.errors import DataError, RaycommendError

#: What the libraries raise on content that is not what they expect, beside `OSError`.
BROKEN = (
    ValueError, TypeError, LookupError, EOFError, MemoryError, ArithmeticError, RuntimeError,
    AttributeError, zipfile.BadZipFile, pa.ArrowException, pl.exceptions.PolarsError,
    pl.exceptions.PanicException, SafetensorError, TokenError,
)  # fmt: skip


@contextmanager
def reading(path: Path, fix: str, error: type[RaycommendError] = DataError) -> Iterator[None]:
    """Turn whatever goes wrong in the block into an error that names the file.

    The block reads this one file and checks it, and raises `ValueError` where a check fails.
    """
    try:
        yield
    except FileNotFoundError:
        raise error("the file is missing", where=path, fix=fix) from None
    except OSError as found:
        problem = f"the file cannot be read: {found.strerror or found}"
        raise error(problem, where=path, fix=fix) from None
    except BROKEN as found:
        # Some are a library's last words: long, or empty.
        problem = f"the file is damaged: {str(found)[:300] or type(found).__name__}"
        raise error(problem, where=path, fix=fix) from None


def read_json(
    path: Path,
    fix: str,
    keys: Mapping[str, type | tuple[type, ...]],
    error: type[RaycommendError] = DataError,
) -> dict[str, Any]:
    """A JSON object that has these keys with values of these types.

    Raises:
        error: it is missing, unreadable or another thing.
    """
    with reading(path, fix, error):
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict):
            raise ValueError("no JSON object")
        for key, kind in keys.items():
            value = data.get(key)
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise ValueError(f"`{key}` is missing or of the wrong type")
        return data


def read_parquet(
    path: Path,
    fix: str,
    columns: Mapping[str, Any],
    *,
    nullable: tuple[str, ...] = (),
    only: bool = False,
    error: type[RaycommendError] = DataError,
) -> pl.DataFrame:
    """A table that has these columns, of these types.

    Args:
        path: of the file.
        fix: what to do if it is broken.
        columns: name -> Polars type; more may be there.
        nullable: of these columns the ones that may hold nulls.
        only: read no other columns.
        error: class of the errors.

    Raises:
        error: it is missing, unreadable or another thing.
    """
    with reading(path, fix, error):
        # Arrow's reader: on damaged lengths Polars' own ends the process.
        with pq.ParquetFile(path) as file:
            table = file.read([*columns] if only else None)
        table.validate(full=True)
        frame = pl.DataFrame(table)
        for name, kind in columns.items():
            if frame.schema.get(name) != kind:
                raise ValueError(f"column `{name}` is {frame.schema.get(name)}, not {kind}")
            if name not in nullable and frame[name].null_count():
                raise ValueError(f"column `{name}` has nulls")
        return frame


def map_array(
    path: Path,
    fix: str,
    kind: type[np.generic] | tuple[type[np.generic], ...],
    num_dims: int,
    error: type[RaycommendError] = DataError,
) -> NDArray[Any]:
    """A NumPy array of a type and a number of dimensions, memory-mapped.

    Raises:
        error: it is missing, unreadable or another thing.
    """
    with reading(path, fix, error):
        array = np.load(path, mmap_mode="r")
        if not isinstance(array, np.ndarray) or not issubclass(array.dtype.type, kind):
            raise ValueError("no array of the type that was written")
        if array.ndim != num_dims or not array.dtype.isnative:
            raise ValueError(f"an array of shape {array.shape} where {num_dims} dimensions belong")
        return array


def to_be_changed(array: NDArray[Any]) -> NDArray[Any]:
    """An array to write to, as this one is now.

    Of a whole file that is memory-mapped all processes share the pages that none has written to.
    """
    if isinstance(array, np.memmap) and array.filename is not None:
        mapped = np.load(array.filename, mmap_mode="c")
        if (mapped.shape, mapped.strides) == (array.shape, array.strides):
            return np.asarray(mapped)
    return np.array(array)
