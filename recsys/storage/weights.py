"""Weights on disk as safetensors, with the permissions of ordinary files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def save_weights(
    weights: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file with the permissions of any new file: by itself it is its owner's.

    Args:
        weights: by name.
        path: of the file.
        metadata: of its header.
    """
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(weights), path, metadata)
    path.chmod(mode)
