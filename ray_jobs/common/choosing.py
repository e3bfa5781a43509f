"""The end of a training or a search: the chosen checkpoint, retrained if the recipe says so."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ray_jobs.common.fine_tuning import trainer_of
from ray_jobs.common.kept import Checkpoints
from ray_jobs.common.progress import epoch_line
from ray_jobs.common.training_group import fit
from ray_jobs.common.work import is_done
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.run import Run
from recsys.artifacts.winner import Winner, write_winner
from recsys.evaluation.report import METRIC
from recsys.tracking import tracker_of


def choose(
    run: Run,
    chosen: Path,
    metrics: dict[str, Any],
    trials: list[dict[str, Any]],
    start: Bundle | None = None,
) -> None:
    """Name a checkpoint, or what it is retrained to, the run's winner; `embed` goes on from it.

    Args:
        run: with the recipe of the trial.
        chosen: the checkpoint.
        metrics: of its last epoch, on the validation window.
        trials: of the search, best first.
        start: the bundle that training began from, with the settings that were searched for it.
    """
    goes_on = chosen
    if run.recipe.train.retrain:
        goes_on = retrain(run, int(metrics["epoch"]))
    searched = bool(trials) if start is None else bool(start.meta.get("searched"))
    started_from = None if start is None else start.version
    winner = Winner(run.recipe, goes_on, searched, started_from)
    write_winner(run.winner_file, winner, run.prepared, chosen, metrics, trials)
    run.recipe.shared.hand_in(run.winner_file)
    tracker_of(run.recipe).training(run)


def retrain(run: Run, epochs: int) -> Path:
    """Train anew until the validation window, fit the head on it; returns the checkpoint.

    Resumes like any other training. Nothing is left to choose by, so the epochs are given.
    """
    name = f"{run.training_name('retrain')}-{epochs}"
    checkpoints = Checkpoints(run.trainings / name, run.recipe.shared)
    if not is_done(checkpoints.curve(), run.recipe, epochs):
        print(
            f"    training {epochs} epochs again, on everything before the test window", flush=True
        )
        build = partial(trainer_of, run, checkpoints, again=epochs)
        fit(build, checkpoints, line_of(epochs))
    return checkpoints.latest()


def line_of(epochs: int) -> Callable[[dict[str, Any]], str]:
    """What is printed of each epoch of a training."""
    return lambda point: epoch_line(point, epochs, METRIC)
