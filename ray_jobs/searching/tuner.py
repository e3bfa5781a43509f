"""A search on Ray Tune, as it stands in its folder or a new one."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from ray_jobs.common.board import the_board
from ray_jobs.common.giving_up import failure_of, reason_of
from ray_jobs.common.groups import groups_at_work
from ray_jobs.common.kept import Checkpoints, forget, run_folder
from ray_jobs.common.progress import epoch_line
from ray_jobs.common.training_group import DRIVER_CPUS
from ray_jobs.common.trial import trial
from ray_jobs.searching.drawing import algorithm, param_space, scheduler
from ray_jobs.searching.room import following
from ray_jobs.searching.trials import TRIAL, in_words
from recsys.artifacts.run import TRAININGS, Run
from recsys.config import Recipe
from recsys.errors import NoSpaceError, cause_of
from recsys.evaluation.report import METRIC


def search(run: Run, concurrent: int) -> tuple[Path, Any]:
    """Run or resume the search, `concurrent` trials at a time.

    Returns:
        The search's folder, and Tune's result grid.
    """
    folder = run.trainings / run.training_name("tune", "tune")
    for training in sorted(folder.glob("train-*")):
        Checkpoints(training, run.recipe.shared).tell_damaged()
    try:
        with groups_at_work(run, folder):
            return folder, _tuner(run, concurrent, folder).fit()
    except Exception as error:
        if isinstance(cause_of(error), NoSpaceError):
            forget(folder)
        raise


def _tuner(run: Run, concurrent: int, folder: Path) -> Any:
    """Tune's tuner of a search, as it stands in its folder or a new one."""
    # Of a failed trial both print a stack trace; `_epoch_lines` tells it in one line.
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    from ray import tune

    recipe = run.recipe
    trainable = tune.with_resources(
        tune.with_parameters(
            trial,
            recipe=recipe.resolved(),
            search=str(folder),
        ),
        {"CPU": DRIVER_CPUS},
    )
    location = recipe.shared.location
    filesystem, place = (location / TRAININGS).arrow() if location else (None, str(folder.parent))
    if tune.Tuner.can_restore(f"{place}/{folder.name}", filesystem):
        return tune.Tuner.restore(
            f"{place}/{folder.name}", trainable=trainable, storage_filesystem=filesystem,
            resume_unfinished=True, resume_errored=True,
        )  # fmt: skip
    drawing = algorithm(recipe, concurrent)
    return tune.Tuner(
        trainable,
        param_space=param_space(recipe),
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            num_samples=recipe.tune.num_trials,
            time_budget_s=recipe.tune.time_budget_s,
            search_alg=drawing,
            scheduler=scheduler(recipe),
            trial_name_creator=lambda trial: f"{TRIAL}{trial.trial_id}",
            trial_dirname_creator=lambda trial: f"{TRIAL}{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=place,
            storage_filesystem=filesystem,
            failure_config=tune.FailureConfig(max_failures=0),
            callbacks=[_epoch_lines(recipe), following(recipe, drawing), _stopping(folder)],
            verbose=0,
        ),
    )


def _stopping(folder: Path) -> Any:
    """A Tune callback that stops the training of a trial that has ended, early or by an error."""
    from ray import tune

    class Stopping(tune.Callback):
        def on_trial_complete(
            self, iteration: int, trials: list[Any], trial: Any, **_: Any
        ) -> None:
            name = run_folder(folder, trial.trial_id, trial.config).name
            the_board().stop.remote(name)

        on_trial_error = on_trial_complete

    return Stopping()


def _epoch_lines(recipe: Recipe) -> Any:
    """A Tune callback that prints each trial's start, epochs and failure."""
    from ray import tune

    class EpochLines(tune.Callback):
        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            place = next(n for n, each in enumerate(trials, start=1) if each is trial)
            print(
                f"    {trial} ({place} of {recipe.tune.num_trials}): {in_words(trial.config)}",
                flush=True,
            )

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
        ) -> None:
            line = epoch_line(result, recipe.train.epochs, METRIC)
            print(f"    {trial}: {line}", flush=True)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            # Tune has written it a moment ago, here and not in the run's folder.
            error = Path(trial.error_file).read_text()
            print(f"    {trial} failed: {reason_of(error)}", flush=True)
            if isinstance(full := failure_of(error), NoSpaceError):
                raise full  # the disk's fault: no other trial would get further

    return EpochLines()
