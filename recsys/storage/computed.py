"""Arrays that are computed once: mapped where they lie whole, else made and written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from recsys.storage.outputs import whole_file
from recsys.storage.reading import BROKEN

#: Key of the hash in the file's header.
_HASH = "sha256"

Arrays = dict[str, NDArray[Any]]


def computed_once(path: Path, make: Callable[[], Arrays]) -> Arrays:
    """The arrays of a file; made and written first if it is missing or not as it was written.

    They are memory-mapped, so all processes of a machine share one copy; what one of them changes
    is its own. Processes that come at once each make them, and the last one's file stays.

    Args:
        path: a safetensors file. Its name tells all that the arrays depend on.
        make: computes them.
    """
    found = _read(path)
    if found is not None:
        return found
    made = {name: np.ascontiguousarray(array) for name, array in make().items()}
    with whole_file(path) as aside:
        save_file(made, aside, {_HASH: _hash(made)})
    return _read(path) or made


def _read(path: Path) -> Arrays | None:
    try:
        with safe_open(path, framework="numpy") as file:  # which checks the header
            told = (file.metadata() or {}).get(_HASH)
        with path.open("rb") as raw:
            size = int.from_bytes(raw.read(8), "little")
            header = json.loads(raw.read(size))
        arrays = {
            name: _mapped(path, 8 + size, **about)
            for name, about in header.items()
            if name != "__metadata__"
        }
    except (OSError, *BROKEN):
        return None
    return arrays if told == _hash(arrays) else None


def _mapped(
    path: Path, start: int, *, dtype: str, shape: list[int], data_offsets: list[int]
) -> NDArray[Any]:
    """A tensor of a safetensors file; pages that are written to become the process's own."""
    kind = np.dtype(bool if dtype == "BOOL" else f"{dtype[0].lower()}{int(dtype[1:]) // 8}")
    if 0 in shape:  # nothing cannot be mapped
        return np.zeros(shape, kind)
    return np.asarray(np.memmap(path, kind, "c", start + data_offsets[0], tuple(shape)))


def _hash(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
