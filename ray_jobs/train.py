"""Prepared data -> a checkpoint: data-parallel fine-tuning on Ray Train; then the outcome heads.

    python -m ray_jobs.train --config recipes/demo.yaml

Killed workers are replaced and go on from the last epoch; a run started again under the same recipe
does the same.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from ray_jobs.common.choosing import choose, line_of
from ray_jobs.common.cluster import connected
from ray_jobs.common.fine_tuning import trainer_of
from ray_jobs.common.kept import Checkpoints
from ray_jobs.common.outcome_fit import fit_outcomes, outcome_steps
from ray_jobs.common.texts import ensure_store
from ray_jobs.common.training_group import fit, trials_at_once
from ray_jobs.common.work import is_done
from recsys.artifacts.run import Run
from recsys.evaluation.report import METRIC
from recsys.tracking import tracker_of


def plan(run: Run) -> list[str]:
    """What a run would do."""
    run.check_trainable()
    tracker_of(run.recipe).check()
    recipe, train = run.recipe, run.recipe.train
    device = "GPU" if train.use_gpu else "CPU"
    fewest, most = train.fewest_workers, train.most_workers
    workers = str(most) if fewest == most else f"{fewest} to {most}"
    return [
        f"read {run.prepared_folder}",
        f"train {recipe.model.language_model} ({recipe.model.tuning}) on {workers} "
        f"{device} workers, at most {train.epochs} epochs, {train.optimizer} "
        f"at {train.learning_rate:g}",
        f"write {run.winner_file}",
        *outcome_steps(run),
    ]


def execute(run: Run) -> Path:
    """Train one recipe and name its best checkpoint the winner."""
    run.check_trainable()
    tracker_of(run.recipe).check()
    run = run.trained
    with connected(run.recipe.ray, dashboard=True):
        trials_at_once(run.recipe)
        ensure_store(run)
        checkpoints = Checkpoints(run.trainings / run.training_name("train"), run.recipe.shared)
        if not is_done(checkpoints.curve(), run.recipe):
            build = partial(trainer_of, run, checkpoints)
            fit(build, checkpoints, line_of(run.recipe.train.epochs))
        checkpoint, metrics = checkpoints.best(METRIC)
        choose(run, checkpoint, metrics, trials=[])
        fit_outcomes(run)
    return run.winner_file


def report(run: Run) -> list[str]:
    """The curve of the winner."""
    data = json.loads(run.winner_file.read_text())
    return [
        f"epoch {point['epoch']}: loss {point['loss']:.4f}, validation {METRIC} {point[METRIC]:.4f}"
        for point in data["curve"]
    ]


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("train")
