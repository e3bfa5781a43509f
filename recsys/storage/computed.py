"""Arrays that are computed once: read where they lie whole, else made and written."""

from __future__ import annotations

import hashlib
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

    Processes that come at once each make them, and the last one's file stays.

    Args:
        path: a safetensors file. Its name tells all that the arrays depend on.
        make: computes them.
    """
    found = _read(path)
    if found is None:
        found = {name: np.ascontiguousarray(array) for name, array in make().items()}
        with whole_file(path) as aside:
            save_file(found, aside, {_HASH: _hash(found)})
    return found


def _read(path: Path) -> Arrays | None:
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            told = (file.metadata() or {}).get(_HASH)
    except (OSError, *BROKEN):
        return None
    return arrays if told == _hash(arrays) else None


def _hash(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
