"""What a training keeps in its folder: checkpoints, each whole or none by its hashes."""

from __future__ import annotations

import math
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recsys.artifacts.checkpoint import CHECKPOINTS, Progress, whole_ones
from recsys.errors import DataError
from recsys.storage.outputs import whole_folder

#: The latest checkpoints that stay: where the last one is damaged, the one before it is there.
NUM_LATEST = 2


def keep(
    run: Path, progress: Progress, write: Callable[[Path], None], metric: str | None = None
) -> None:
    """Write a checkpoint; the latest ones stay, and the best one.

    Its name tells the epochs that are finished, and the step if it is within the next one.

    Args:
        run: folder of the training.
        progress: of the checkpoint.
        write: writes it, sealed, into a folder.
        metric: what the best epoch is best by; None: the latest is.
    """
    run.mkdir(parents=True, exist_ok=True)
    within = f"-{progress.step:09d}" if progress.left is not None else ""
    # Workers that were cut off and given up may live on, and write what their successors do.
    mark = f".{platform.node()}-{os.getpid()}"
    with whole_folder(run / f"{_name(progress.epoch)}{within}", mark) as out:
        write(out)
    found = sorted(run.glob(CHECKPOINTS))
    stay = set(found[-NUM_LATEST:])
    if metric is not None and progress.curve:
        best = max(progress.curve, key=lambda at: (not math.isnan(at[metric]), at[metric]))["epoch"]
        stay.add(run / _name(int(best)))
    for path in found:
        if path not in stay:
            shutil.rmtree(path, ignore_errors=True)


def _name(epoch: int) -> str:
    return f"checkpoint_{epoch:04d}"


def sweep(run: Path) -> None:
    """Take away what workers that are gone had half written."""
    for path in run.glob(f".{CHECKPOINTS}"):
        shutil.rmtree(path, ignore_errors=True)


def best_checkpoint(run: Path, metric: str) -> tuple[Path, dict[str, Any]]:
    """The checkpoint of a training with the highest value of a metric, and its last epoch."""
    found = [(path, at.curve[-1]) for path, at in whole_ones(run) if at.curve and at.left is None]
    if not found:
        raise DataError("the training left no checkpoint", where=run, fix="train again")
    # What is not a number is greater than nothing, and nothing is greater than it.
    return max(found, key=lambda pair: (not math.isnan(pair[1][metric]), pair[1][metric]))


def latest_checkpoint(run: Path) -> Path:
    """The checkpoint that a finished training ended with."""
    found = whole_ones(run)
    if not found:
        raise DataError("the training left no checkpoint", where=run, fix="train again")
    return found[-1][0]


def last_checkpoint(run: Path) -> Path | None:
    """What a worker goes on from, if anything: the last checkpoint that is whole."""
    found = whole_ones(run)
    return found[-1][0] if found else None


def tell_damaged(run: Path) -> None:
    """Say which checkpoints of a training are damaged, and where it goes on from."""
    whole = [path for path, _ in whole_ones(run)]
    before = whole[-1].name if whole else "the beginning"
    for path in sorted(run.glob(CHECKPOINTS)):
        if path not in whole:
            print(f"    {path} is damaged: the training goes on from {before}", flush=True)


def curve_of(run: Path) -> list[dict[str, Any]]:
    """All epochs that a training has finished, as its checkpoints tell."""
    return max((progress.curve for _, progress in whole_ones(run)), key=len, default=[])


def run_folder(search: Path, trial_id: str) -> Path:
    """Where a trial trains: where the same trial of a search that had to begin anew has trained.

    Trials are drawn by the recipe's seed, so those of one number are the same; their ids are not.

    Args:
        search: folder of the search.
        trial_id: Tune's, which ends with the trial's number.
    """
    number = trial_id.rpartition("_")[2]
    found = sorted(search.glob(f"train-*_{number}"))
    return found[0] if found else search / f"train-{trial_id}"


def forget(search: Path) -> None:
    """Take away what Tune remembers of a search, which a full disk has torn, and leave the runs.

    The search then begins anew, and each of its trials goes on from its checkpoints.
    """
    for path in search.iterdir() if search.is_dir() else ():
        if path.is_dir() and not path.name.startswith("train-"):
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
