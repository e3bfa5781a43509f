"""Prepared data -> a checkpoint: data-parallel fine-tuning on Ray Train; then the outcome heads.

    python -m ray_jobs.train --config recipes/demo.yaml [--from champion]

Killed workers are replaced and go on from the last epoch; a run started again under the same recipe
does the same. With `--from` training begins from a bundle's weights, and takes a small part of the
time, see `recsys.artifacts.warm_start`.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

from ray_jobs.common.choosing import choose, line_of
from ray_jobs.common.cluster import connected
from ray_jobs.common.fine_tuning import trainer_of
from ray_jobs.common.kept import Checkpoints
from ray_jobs.common.outcome_fit import fit_outcomes, outcome_steps
from ray_jobs.common.texts import ensure_store, text_vectors
from ray_jobs.common.training_group import fit, trials_at_once
from ray_jobs.common.work import Start, is_done
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.checkpoint import save
from recsys.artifacts.progress import Progress
from recsys.artifacts.run import TRAININGS, Run
from recsys.artifacts.warm_start import load_start, start_bundle, warm_recipe
from recsys.config import with_settings
from recsys.evaluation.report import METRIC
from recsys.model.ranking_head import ScoringHead
from recsys.tracking import tracker_of
from recsys.training.build import build_two_tower
from recsys.training.optim import build_optimizer

#: Names of trainings that start from a bundle begin with it.
WARM = "warm"


def plan(run: Run, *, start_from: str | None = None) -> list[str]:
    """What a run would do."""
    run.check_trainable()
    tracker_of(run.recipe).check()
    start = []
    if start_from is not None:
        run, bundle = _warm(run, start_from)
        start = [f"start from {bundle.version} in {bundle.folder}"]
    recipe, train = run.recipe, run.recipe.train
    device = "GPU" if train.use_gpu else "CPU"
    fewest, most = train.fewest_workers, train.most_workers
    workers = str(most) if fewest == most else f"{fewest} to {most}"
    return [
        f"read {run.prepared_folder}",
        *start,
        f"train {recipe.model.language_model} ({recipe.model.tuning}) on {workers} "
        f"{device} workers, at most {train.epochs} epochs, {train.optimizer} "
        f"at {train.learning_rate:g}",
        f"write {run.winner_file}",
        *outcome_steps(run),
    ]


def execute(run: Run, *, start_from: str | None = None) -> Path:
    """Train one recipe and name its best checkpoint the winner.

    Args:
        run: prepared.
        start_from: a bundle to begin from, see `start_bundle`; None: the pretrained language model.
    """
    run.check_trainable()
    tracker_of(run.recipe).check()
    run = run.trained
    with connected(run.recipe.ray, dashboard=True):
        trials_at_once(run.recipe)
        if start_from is None:
            _in_full(run)
        else:
            _from_bundle(run, start_from)
        fit_outcomes(run)
    return run.winner_file


def _in_full(run: Run) -> None:
    ensure_store(run)
    checkpoints = Checkpoints(run.trainings / run.training_name("train"), run.recipe.shared)
    if not is_done(checkpoints.curve(), run.recipe):
        build = partial(trainer_of, run, checkpoints)
        fit(build, checkpoints, line_of(run.recipe.train.epochs))
    checkpoint, metrics = checkpoints.best(METRIC)
    choose(run, checkpoint, metrics, trials=[])


def _from_bundle(run: Run, start_from: str) -> None:
    training, bundle = _warm(run, start_from)
    share = run.recipe.train.warm_users
    ensure_store(training)
    name = training.training_name(WARM, start=f"{bundle.version} {share}")
    checkpoints = Checkpoints(run.trainings / name, run.recipe.shared)
    if not is_done(checkpoints.curve(), training.recipe):
        start = Start(str(_started(training, bundle, checkpoints)), share)
        build = partial(trainer_of, training, checkpoints, start=start)
        fit(build, checkpoints, line_of(training.recipe.train.epochs))
    checkpoint, metrics = checkpoints.best(METRIC)
    refreshed = run.with_recipe(warm_recipe(run.recipe, bundle))
    choose(refreshed, checkpoint, metrics, trials=[], start=bundle)
    _drop_earlier(run, checkpoints)


def _warm(run: Run, start_from: str) -> tuple[Run, Bundle]:
    """The run under the recipe of a warm training, and the bundle that it begins from."""
    bundle, train = start_bundle(run.recipe, start_from), run.recipe.train
    recipe = warm_recipe(run.recipe, bundle)
    rate = train.warm_rate * recipe.train.learning_rate
    settings = {"train.epochs": train.warm_epochs, "train.learning_rate": rate}
    return run.with_recipe(with_settings(recipe, settings)), bundle


def _started(run: Run, bundle: Bundle, checkpoints: Checkpoints) -> Path:
    """Write the checkpoint that a warm training goes on from; returns the texts' vectors."""
    recipe, prepared = run.recipe, run.prepared
    start = checkpoints.last()
    if start is None:
        model, item_rows = build_two_tower(recipe, prepared)
        head = ScoringHead(recipe.model.temperature)
        load_start(bundle, model, head, item_rows, prepared.catalogue.items)
        optimizer = build_optimizer(model, recipe.train, [])
        checkpoints.keep(
            Progress(), lambda folder: save(folder, model, head, optimizer, Progress(), None)
        )
        start = checkpoints.latest()
    return text_vectors(run, start).folder


def _drop_earlier(run: Run, present: Checkpoints) -> None:
    """Remove the warm trainings of earlier nights: nothing names their checkpoints any more."""
    shared = present.shared
    names = {path.name for path in run.trainings.glob(f"{WARM}-*")}
    if shared.location is not None:  # those of other machines are there alone
        there = (shared.location / TRAININGS).folders()
        names |= {name for name in there if name.startswith(f"{WARM}-")}
    for folder in (run.trainings / name for name in names):
        if folder != present.run:
            for name in shared.names(folder):
                shared.drop(folder / name)
            shutil.rmtree(folder, ignore_errors=True)


def report(run: Run) -> list[str]:
    """The curve of the winner."""
    data = json.loads(run.winner_file.read_text())
    return [
        f"epoch {point['epoch']}: "
        + (f"loss {point['loss']:.4f}, " if "loss" in point else "")
        + f"validation {METRIC} {point[METRIC]:.4f}"
        for point in data["curve"]
    ]


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("train")
