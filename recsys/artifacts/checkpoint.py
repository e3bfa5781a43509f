"""A training checkpoint: safetensors and JSON, never pickle.

Only what training changes is stored: the frozen part of the language model comes from its folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from recsys.artifacts.progress import FIX, Progress, load_progress, read_progress, seal
from recsys.errors import DataError
from recsys.model.ranking_head import ScoringHead
from recsys.model.sharding import share_like, whole
from recsys.model.vector_cache import VectorCache
from recsys.storage.reading import reading
from recsys.storage.seals import file_sha256
from recsys.storage.weights import save_weights

MODEL, HEAD, OPTIMIZER, CACHE = (
    "model.safetensors", "head.safetensors", "optimizer.safetensors", "text_vectors.safetensors",
)  # fmt: skip
#: Parameters that no training changes.
FROZEN = ("language.embeddings.", "language.frozen_layers.")


def save(
    folder: Path,
    model: nn.Module,
    head: ScoringHead | None,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    cache: VectorCache | None = None,
) -> None:
    """Write a checkpoint into an existing folder.

    Args:
        folder: an existing one.
        model: what is trained.
        head: None where nothing is scored.
        optimizer: of the model.
        progress: of the training.
        cache: what is changed in it is kept; None where there is none, or too much of it.
    """
    save_weights(_whole(_trained(model)), folder / MODEL)
    if head is not None:
        save_weights(
            {name: value.contiguous() for name, value in head.state_dict().items()}, folder / HEAD
        )
    save_weights(_whole(_flatten(optimizer)), folder / OPTIMIZER)
    if cache is not None:
        save_weights(cache.changed(), folder / CACHE)
    seal(folder, progress)


def take_part(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give one's shares to the worker that saves, where layers are sharded."""
    for value in (*_trained(model).values(), *_flatten(optimizer).values()):
        whole(value)


def load_model(folder: Path, model: nn.Module, head: ScoringHead | None) -> Progress:
    """Restore model and head, if there is one, in place; returns the progress.

    Raises:
        DataError: the checkpoint is of another recipe or broken; then nothing is restored.
    """
    present = _trained(model)
    state = _tensors(folder / MODEL, present)
    of_head = None if head is None else _tensors(folder / HEAD, head.state_dict())
    progress = load_progress(folder)
    shares = {name: share_like(value, present[name]) for name, value in state.items()}
    model.load_state_dict(shares, strict=False)
    if head is not None and of_head is not None:
        head.load_state_dict(of_head)
    return progress


def language_digest(folder: Path) -> str:
    """SHA-256 of the language model's trained layers, 16 hex digits.

    Raises:
        DataError: the checkpoint is broken.
    """
    digest = hashlib.sha256()
    for name, value in sorted(_tensors(folder / MODEL).items()):
        if name.startswith("language."):
            digest.update(name.encode())
            digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore the optimiser in place.

    Raises:
        DataError: its file is missing or broken.
    """
    groups = optimizer.state_dict()["param_groups"]
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    with reading(folder / OPTIMIZER, FIX):
        for name, value in _tensors(folder / OPTIMIZER).items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = share_like(value, parameters[int(index)])
        optimizer.load_state_dict({"state": state, "param_groups": groups})


def load_cache(folder: Path, cache: VectorCache, step: int) -> None:
    """Restore what was kept of the text vectors; all are out of date if nothing was.

    Raises:
        DataError: its file is broken.
    """
    if (folder / CACHE).exists():
        changed = _tensors(folder / CACHE)
        with reading(folder / CACHE, FIX):
            cache.restore(changed)
    else:
        cache.expire(step)


def _tensors(path: Path, expected: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The tensors of a file; their names, shapes and types must be the expected ones."""
    hashes = read_progress(path.parent)["files"]
    with reading(path, FIX):
        if hashes.get(path.name) != file_sha256(path):
            raise ValueError("the file is not the one that was written (SHA-256)")
        state = load_file(path)
    wrong = [] if expected is None else sorted(
        name for name in expected.keys() | state.keys()
        if name not in state or name not in expected or state[name].shape != expected[name].shape
        or state[name].dtype != expected[name].dtype
    )  # fmt: skip
    if wrong:
        raise DataError(
            "the checkpoint does not fit the recipe", where=path, field=wrong[0],
            fix="train again, or use the recipe that made it",
        )  # fmt: skip
    return state


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers that training may change."""
    return _whole(_trained(model))


def _whole(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors to be stored; where some are sharded, all workers must take part."""
    return {name: whole(value.detach()).cpu().contiguous() for name, value in state.items()}


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: value for name, value in model.state_dict().items() if not name.startswith(FROZEN)
    }


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": value
        for index, entries in state.items()
        for key, value in entries.items()
        if isinstance(value, Tensor)
    }
