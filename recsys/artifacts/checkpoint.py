"""A training checkpoint: safetensors and JSON, never pickle.

Only what training changes is stored: the frozen part of the language model comes from its folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from recsys.errors import DataError
from recsys.model.ranking_head import ScoringHead
from recsys.model.sharding import share_like, whole
from recsys.model.vector_cache import VectorCache
from recsys.storage.reading import read_json, reading
from recsys.storage.seals import (
    BROKEN_SEAL,
    SEAL,
    file_hashes,
    file_sha256,
    is_sealed,
    sealed,
)
from recsys.storage.weights import save_weights

MODEL, HEAD, OPTIMIZER, CACHE, PROGRESS = (
    "model.safetensors", "head.safetensors", "optimizer.safetensors", "text_vectors.safetensors",
    "progress.json",
)  # fmt: skip
#: A training's checkpoints in its folder.
CHECKPOINTS = "checkpoint_*"

_FIX = "remove the checkpoint: the training goes on from the one before, or train again"
#: Parameters that no training changes.
FROZEN = ("language.embeddings.", "language.frozen_layers.")


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: epochs finished.
        step: steps taken.
        curve: metrics of each finished epoch.
        until: the cut that the encoders learn until: `head`, or `valid` in a retraining.
        left: within an epoch: whom each worker has before it, see `recsys.training.epoch_order`;
            None where an epoch has ended.
        losses: within an epoch: sum of its steps' losses over all workers, and number of steps.
    """

    epoch: int = 0
    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    until: str = "head"
    left: list[list[tuple[int, int]]] | None = None
    losses: tuple[float, int] = (0.0, 0)


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


def seal(folder: Path, progress: Progress) -> None:
    """Write the progress, and in it the hashes of the files that lie there: the last of a save."""
    told = sealed({**asdict(progress), "files": file_hashes(folder, "*.safetensors")})
    (folder / PROGRESS).write_text(json.dumps(told, indent=2) + "\n")


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


def load_progress(folder: Path) -> Progress:
    """The progress alone.

    Raises:
        DataError: it is missing or broken.
    """
    read = _read_progress(folder)
    left = read["left"]
    with reading(folder / PROGRESS, _FIX):
        if left is not None:
            left = [[(int(first), int(stop)) for first, stop in share] for share in left]
        loss, num_losses = read["losses"]
    return Progress(
        read["epoch"], read["step"], read["curve"], read["until"], left, (loss, num_losses)
    )


def whole_ones(run: Path) -> list[tuple[Path, Progress]]:
    """The checkpoints of a training run that are whole, with their progress; oldest first."""
    found = [(path, load_progress(path)) for path in run.glob(CHECKPOINTS) if is_whole(path)]
    return sorted(found, key=lambda pair: (pair[1].epoch, pair[0].name))


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint is there as it was written; a worker may be killed while it writes."""
    try:
        hashes = _read_progress(folder)["files"]
        return all(file_sha256(folder / name) == digest for name, digest in hashes.items())
    except (DataError, OSError):
        return False


def _read_progress(folder: Path) -> dict[str, Any]:
    path = folder / PROGRESS
    kinds = {
        "epoch": int,
        "step": int,
        "curve": list,
        "until": str,
        "files": dict,
        "losses": list,
        SEAL: str,
    }
    told = read_json(path, _FIX, kinds)
    with reading(path, _FIX):
        if not is_sealed(told):
            raise ValueError(BROKEN_SEAL)
        if not isinstance(told.get("left", 0), list | None):
            raise ValueError("no list of who is left")
    return told


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore the optimiser in place.

    Raises:
        DataError: its file is missing or broken.
    """
    groups = optimizer.state_dict()["param_groups"]
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    with reading(folder / OPTIMIZER, _FIX):
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
        with reading(folder / CACHE, _FIX):
            cache.restore(changed)
    else:
        cache.expire(step)


def _tensors(path: Path, expected: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The tensors of a file; their names, shapes and types must be the expected ones."""
    hashes = _read_progress(path.parent)["files"]
    with reading(path, _FIX):
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
