"""What a training keeps in its folder: checkpoints, each whole or none by its hashes."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.artifacts.progress import CHECKPOINTS, PROGRESS, Progress, whole_ones
from recsys.errors import DataError
from recsys.storage.seals import json_sha256
from recsys.storage.shared import SharedFolder

#: The latest checkpoints that stay: where the last one is damaged, the one before it is there.
NUM_LATEST = 2


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a training.

    Attributes:
        run: folder of the training.
        shared: the run's folder, which it lies in.
    """

    run: Path
    shared: SharedFolder

    def keep(
        self, progress: Progress, write: Callable[[Path], None], metric: str | None = None
    ) -> None:
        """Write a checkpoint; the latest ones stay, and the best one.

        Its name tells the epochs that are finished, and the step if it is within the next one.

        Args:
            progress: of the checkpoint.
            write: writes it, sealed, into a folder.
            metric: what the best epoch is best by; None: the latest is.
        """
        within = f"-{progress.step:09d}" if progress.left is not None else ""
        # Workers that were cut off and given up may live on, and write what their successors do.
        mark = f".{platform.node()}-{os.getpid()}"
        with self.shared.whole(self.run / f"{_name(progress.epoch)}{within}", mark) as out:
            write(out)
        found = [name for name in self.shared.names(self.run) if Path(name).match(CHECKPOINTS)]
        stay = set(found[-NUM_LATEST:])
        if metric is not None and progress.curve:
            best = max(progress.curve, key=lambda at: (not math.isnan(at[metric]), at[metric]))
            stay.add(_name(int(best["epoch"])))
        for name in found:
            if name not in stay:
                self.shared.drop(self.run / name)

    def sweep(self) -> None:
        """Take away what workers that are gone had half written."""
        for path in self.run.glob(f".{CHECKPOINTS}"):
            shutil.rmtree(path, ignore_errors=True)

    def best(self, metric: str) -> tuple[Path, dict[str, Any]]:
        """The checkpoint with the highest value of a metric, and its last epoch.

        Raises:
            DataError: there is none.
        """
        found = [(path, at.curve[-1]) for path, at in self._whole() if at.curve and at.left is None]
        if not found:
            raise self._nothing()
        # What is not a number is greater than nothing, and nothing is greater than it.
        return max(found, key=lambda pair: (not math.isnan(pair[1][metric]), pair[1][metric]))

    def latest(self) -> Path:
        """The checkpoint that a finished training ended with.

        Raises:
            DataError: there is none.
        """
        last = self.last()
        if last is None:
            raise self._nothing()
        return last

    def last(self) -> Path | None:
        """What a worker goes on from, if anything: the last checkpoint that is whole."""
        found = self._whole()
        return found[-1][0] if found else None

    def tell_damaged(self) -> None:
        """Say which checkpoints are damaged, and where the training goes on from."""
        whole = [path for path, _ in self._whole()]
        before = whole[-1].name if whole else "the beginning"
        for name in self.shared.names(self.run):
            path = self.run / name
            if path.match(CHECKPOINTS) and path not in whole:
                print(f"    {path} is damaged: the training goes on from {before}", flush=True)

    def curve(self) -> list[dict[str, Any]]:
        """All epochs that the training has finished, as its whole checkpoints tell."""
        if self.shared.location is not None:
            return self.curve_now()
        return max((progress.curve for _, progress in whole_ones(self.run)), key=len, default=[])

    def curve_now(self) -> list[dict[str, Any]]:
        """The same without a look at whether they are whole, for those who look often."""
        curves: list[list[dict[str, Any]]] = [[]]
        for name in self.shared.names(self.run):
            if Path(name).match(CHECKPOINTS):
                data = self.shared.read(self.run / name, PROGRESS)
                try:
                    curves.append(json.loads(data or b"")["curve"])
                except ValueError:  # just being written, or just replaced by a better one
                    continue
        return max(curves, key=len)

    def _whole(self) -> list[tuple[Path, Progress]]:
        self.shared.bring_all(self.run)
        return whole_ones(self.run)

    def _nothing(self) -> DataError:
        return DataError("the training left no checkpoint", where=self.run, fix="train again")


def _name(epoch: int) -> str:
    return f"checkpoint_{epoch:04d}"


def run_folder(search: Path, trial_id: str, settings: Mapping[str, Any]) -> Path:
    """Where a trial trains: where the same trial of a search that had to begin anew has trained.

    Trials are drawn by the recipe's seed, so those of one number are mostly the same; what TPE
    draws depends on which of the others had ended.

    Args:
        search: folder of the search.
        trial_id: Tune's, which ends with the trial's number.
        settings: of the trial.
    """
    return search / f"train-{trial_id.rpartition('_')[2]}-{json_sha256(dict(settings))[:8]}"


def forget(search: Path) -> None:
    """Take away what Tune remembers of a search, which a full disk has torn, and leave the runs.

    The search then begins anew, and each of its trials goes on from its checkpoints.
    """
    for path in search.iterdir() if search.is_dir() else ():
        if path.is_dir() and not path.name.startswith("train-"):
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
