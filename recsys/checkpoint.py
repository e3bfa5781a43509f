"""A training checkpoint: safetensors and JSON, never pickle.

Only what training changes is stored: the frozen part of the language model comes from its folder.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recsys.errors import DataError
from recsys.model.heads import ScoringHead

MODEL, HEAD, OPTIMIZER, PROGRESS = (
    "model.safetensors", "head.safetensors", "optimizer.safetensors", "progress.json",
)  # fmt: skip

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
    """

    epoch: int = 0
    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    until: str = "head"

    def values(self, metric: str) -> list[float]:
        """One metric, epoch by epoch."""
        return [point[metric] for point in self.curve]


def save(
    folder: Path,
    model: nn.Module,
    head: ScoringHead | None,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Write a checkpoint into an existing folder; `head` is None where nothing is scored."""
    save_file(trained_state(model), folder / MODEL)
    if head is not None:
        save_file(
            {name: value.contiguous() for name, value in head.state_dict().items()}, folder / HEAD
        )
    save_file(_flatten(optimizer), folder / OPTIMIZER)
    (folder / PROGRESS).write_text(json.dumps(asdict(progress), indent=2) + "\n")


def load_model(folder: Path, model: nn.Module, head: ScoringHead | None) -> Progress:
    """Restore model and head, if there is one, in place; returns the progress.

    Raises:
        DataError: the checkpoint is of another recipe.
    """
    state = load_file(folder / MODEL)
    wanted = trained_state(model)
    wrong = sorted(
        name for name in wanted.keys() | state.keys()
        if name not in state or name not in wanted or state[name].shape != wanted[name].shape
    )  # fmt: skip
    if wrong:
        raise DataError(
            "the checkpoint does not fit the recipe", where=folder / MODEL, field=wrong[0],
            mend="train again, or use the recipe that made it",
        )  # fmt: skip
    model.load_state_dict(state, strict=False)
    if head is not None:
        head.load_state_dict(load_file(folder / HEAD))
    return load_progress(folder)


def load_progress(folder: Path) -> Progress:
    """The progress alone."""
    return Progress(**json.loads((folder / PROGRESS).read_text()))


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore the optimiser in place."""
    flat = load_file(folder / OPTIMIZER)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in flat.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers that training may change."""
    return {
        name: value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
        if not name.startswith(FROZEN)
    }


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": value.detach().cpu().contiguous()
        for index, entries in state.items()
        for key, value in entries.items()
        if isinstance(value, Tensor)
    }
