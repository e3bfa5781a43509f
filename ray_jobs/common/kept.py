"""What a training run keeps in its folder, and what it goes on from.

Ray's own notes beside the checkpoints are rewritten in place, and a disk that fills tears them.
What counts are the checkpoints, each whole or none by its hashes.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from recsys.artifacts.checkpoint import is_whole, whole_ones
from recsys.errors import DataError

#: Ray Train's list of a run's checkpoints.
SNAPSHOT = "checkpoint_manager_snapshot.json"


def best_checkpoint(run: Path, metric: str) -> tuple[Path, dict[str, Any]]:
    """The checkpoint of a training run with the highest value of a metric, and its last epoch."""
    found = [(path, progress.curve[-1]) for path, progress in whole_ones(run)]
    if not found:
        raise DataError("the training left no checkpoint", where=run, fix="train again")
    # What is not a number is greater than nothing, and nothing is greater than it.
    return max(found, key=lambda pair: (not math.isnan(pair[1][metric]), pair[1][metric]))


def latest_checkpoint(run: Path) -> Path:
    """The checkpoint that a finished training run ended with."""
    found = whole_ones(run)
    if not found:
        raise DataError("the training left no checkpoint", where=run, fix="train again")
    return found[-1][0]


def last_checkpoint(config: dict[str, Any]) -> Path | None:
    """What a worker goes on from: the last checkpoint that Ray Train knows, or that lies there.

    Ray Train knows of none where its list of them was torn, see `drop_torn`.
    """
    import ray.train

    last = ray.train.get_checkpoint()
    if last is not None:
        return Path(last.path)
    found = whole_ones(Path(config["run"]))
    return found[-1][0] if found else None


def curve_of(run: Path) -> list[dict[str, Any]]:
    """All epochs that a training run has finished, as its checkpoints tell."""
    return max((progress.curve for _, progress in whole_ones(run)), key=len, default=[])


def drop_torn(run: Path) -> None:
    """Take away what a disk that filled has left half written in the folder of a training run.

    Ray Train cannot start on a torn list of checkpoints. Without one it starts, and the workers go
    on from the checkpoint that lies there.
    """
    known = run / SNAPSHOT
    try:
        listed = json.dumps(json.loads(known.read_text()))
    except FileNotFoundError:
        listed = ""
    except ValueError:
        known.unlink()
        listed = ""
    for path in run.glob("checkpoint_*/"):
        if path.name not in listed and not is_whole(path):
            shutil.rmtree(path)


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
