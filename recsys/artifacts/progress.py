"""How far a training is: the JSON in a checkpoint, which says whether the checkpoint is whole.

Without torch, so that a process which only looks at checkpoints starts in a third of the time.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recsys.errors import DataError
from recsys.storage.reading import read_json, reading
from recsys.storage.seals import (
    BROKEN_SEAL,
    SEAL,
    file_hashes,
    file_sha256,
    is_sealed,
    sealed,
)

PROGRESS = "progress.json"
#: A training's checkpoints in its folder.
CHECKPOINTS = "checkpoint_*"
#: What to do about a broken one.
FIX = "remove the checkpoint: the training goes on from the one before, or train again"


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


def seal(folder: Path, progress: Progress) -> None:
    """Write the progress, and in it the hashes of the files that lie there: the last of a save."""
    told = sealed({**asdict(progress), "files": file_hashes(folder, "*.safetensors")})
    (folder / PROGRESS).write_text(json.dumps(told, indent=2) + "\n")


def load_progress(folder: Path) -> Progress:
    """The progress alone.

    Raises:
        DataError: it is missing or broken.
    """
    read = read_progress(folder)
    left = read["left"]
    with reading(folder / PROGRESS, FIX):
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
        hashes = read_progress(folder)["files"]
        return all(file_sha256(folder / name) == digest for name, digest in hashes.items())
    except (DataError, OSError):
        return False


def read_progress(folder: Path) -> dict[str, Any]:
    """The JSON, checked.

    Raises:
        DataError: it is missing or broken.
    """
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
    told = read_json(path, FIX, kinds)
    with reading(path, FIX):
        if not is_sealed(told):
            raise ValueError(BROKEN_SEAL)
        if not isinstance(told.get("left", 0), list | None):
            raise ValueError("no list of who is left")
    return told
