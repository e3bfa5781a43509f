"""Search learning rate and batch size: Ray Tune over Ray Train, pruned after every epoch.

    python -m ray_jobs.tune --config recipes/demo.yaml

A trial is a function that builds a trainer and fits it; its epochs reach Tune through
`TuneReportCallback`, so that ASHA can stop it. A search that was interrupted goes on when started
again under the same recipe. The winner's own checkpoint goes on to `embed`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ray_jobs.common.choosing import choose
from ray_jobs.common.cluster import connected
from ray_jobs.common.giving_up import failure_of, reason_of
from ray_jobs.common.kept import best_checkpoint, curve_of, forget, run_folder
from ray_jobs.common.progress import epoch_line
from ray_jobs.common.texts import ensure_store
from ray_jobs.common.training_group import DRIVER_CPUS, trials_at_once
from ray_jobs.common.trial import trial, with_trial
from recsys.artifacts.run import Run
from recsys.config import Recipe
from recsys.errors import DataError, NoSpaceError, RaycommendError, cause_of
from recsys.evaluation.report import METRIC

#: Begin of a trial's name.
TRIAL = "trial-"


def plan(run: Run) -> list[str]:
    """What a run would do."""
    run.check_trainable()
    return steps(run)


def steps(run: Run) -> list[str]:
    """What a run does, whatever is prepared now."""
    tune = run.recipe.tune
    rate = tune.learning_rate
    return [
        f"read {run.prepared_folder}",
        f"run {tune.num_trials} trials: learning rate {rate.low:g} to {rate.high:g}, batch size "
        f"one of {', '.join(map(str, tune.batch_size))}, at most {run.recipe.train.epochs} epochs "
        "each",
        f"write {run.winner_file}",
    ]


def execute(run: Run) -> Path:
    """Search, and name the best trial's best checkpoint the winner."""
    run.check_trainable()
    run = run.trained
    with connected(run.recipe.ray, dashboard=True):
        concurrent = run.recipe.tune.max_concurrent or trials_at_once(run.recipe)
        ensure_store(run)
        with _saved_when_interrupted():
            results = search(run, concurrent)
        trials = trial_table(results)
        finished = [trial for trial in trials if trial[METRIC] is not None]
        if not finished:
            raise all_failed(trials, Path(results.experiment_path))
        best = finished[0]
        checkpoint, metrics = best_checkpoint(Path(best["path"]), METRIC)
        choose(run.with_recipe(with_trial(run.recipe, best)), checkpoint, metrics, trials)
    return run.winner_file


def all_failed(trials: list[dict[str, Any]], folder: Path) -> RaycommendError:
    """The error of a search that has no winner; it tells every trial's reason.

    Args:
        trials: see `trial_table`.
        folder: of the search.
    """
    reasons = [f"{_settings(trial)}: {trial['error']}" for trial in trials]
    return DataError(
        f"every trial failed: {'; '.join(reasons)}", where=folder, field="tune.learning_rate",
        fix="search lower rates or set a lower train.clip_norm if they diverged; else see the "
        "trials' error.txt there",
    )  # fmt: skip


def _settings(trial: dict[str, Any]) -> str:
    return (
        f"{trial['trial']} (learning rate {trial['learning_rate']:.2e}, "
        f"batch size {trial['batch_size']})"
    )


@contextmanager
def _saved_when_interrupted() -> Iterator[None]:
    """Let Ctrl-C save the search's state, and then interrupt.

    By itself Tune catches the signal and comes back as if the search were over. It leaves SIGINT
    alone if told so, and answers SIGUSR1 in the same way: the first Ctrl-C is handed on as that.
    """
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    came = threading.Event()

    def hand_on(number: int, frame: FrameType | None) -> None:
        save = signal.getsignal(signal.SIGUSR1)
        if came.is_set() or not callable(save):
            raise KeyboardInterrupt
        came.set()
        save(number, frame)

    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGUSR1)]
    signal.signal(signal.SIGINT, hand_on)
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    if came.is_set():
        raise KeyboardInterrupt


def search(run: Run, concurrent: int) -> Any:
    """Run or resume the search, `concurrent` trials at a time; returns Tune's result grid."""
    folder = run.trainings / run.training_name("tune", "tune")
    try:
        return _tuner(run, concurrent, folder).fit()
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
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search import BasicVariantGenerator

    recipe, settings = run.recipe, run.recipe.tune
    trainable = tune.with_resources(
        tune.with_parameters(
            trial,
            recipe=recipe.resolved(),
            prepared=str(run.prepared.folder),
            store=str(run.text_store_folder),
            storage=str(folder),
        ),
        {"CPU": DRIVER_CPUS},
    )
    if tune.Tuner.can_restore(str(folder)):
        return tune.Tuner.restore(
            str(folder), trainable=trainable, resume_unfinished=True, resume_errored=True
        )
    return tune.Tuner(
        trainable,
        param_space={
            "learning_rate": tune.loguniform(
                settings.learning_rate.low, settings.learning_rate.high
            ),
            "batch_size": tune.choice(list(settings.batch_size)),
        },
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            num_samples=settings.num_trials,
            # TuneConfig's own max_concurrent_trials is ignored beside a given search_alg.
            search_alg=BasicVariantGenerator(random_state=recipe.seed, max_concurrent=concurrent),
            scheduler=ASHAScheduler(
                time_attr="epoch",
                # One more than there are: a trial that gets so far ends by itself.
                max_t=recipe.train.epochs + 1,
                grace_period=min(settings.grace_epochs, recipe.train.epochs),
                reduction_factor=settings.reduction_factor,
            ),
            trial_name_creator=lambda trial: f"{TRIAL}{trial.trial_id}",
            trial_dirname_creator=lambda trial: f"{TRIAL}{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=tune.FailureConfig(max_failures=0),
            callbacks=[_epoch_lines(recipe)],
            verbose=0,
        ),
    )


def _epoch_lines(recipe: Recipe) -> Any:
    """A Tune callback that prints each trial's start, epochs and failure."""
    from ray import tune

    class EpochLines(tune.Callback):
        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            place = next(n for n, each in enumerate(trials, start=1) if each is trial)
            print(
                f"    {trial} ({place} of {recipe.tune.num_trials}): learning rate "
                f"{trial.config['learning_rate']:.2e}, batch size {trial.config['batch_size']}",
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


def trial_table(results: Any) -> list[dict[str, Any]]:
    """The trials, best first; one that finished no epoch has no metric.

    A trial is judged by the curve that its latest checkpoint holds. What Tune remembers of it
    begins anew where an interrupted search goes on.
    """
    rows = []
    for result in results:
        run = _run_of(Path(result.path))
        curve = curve_of(run)
        rows.append(
            {
                "trial": Path(result.path).name,
                "learning_rate": result.config["learning_rate"],
                "batch_size": result.config["batch_size"],
                "epochs": len(curve),
                METRIC: max((point[METRIC] for point in curve), default=None),
                "path": str(run) if curve else None,
                "error": reason_of(result.error),
            }
        )
    return sorted(rows, key=lambda row: (row[METRIC] is None, -(row[METRIC] or 0), row["trial"]))


def _run_of(trial: Path) -> Path:
    """The folder of a trial's training run, beside the trial's own."""
    return run_folder(trial.parent, trial.name.removeprefix(TRIAL))


def report(run: Run) -> list[str]:
    """The table of trials."""
    trials = json.loads(run.winner_file.read_text())["trials"]
    lines = [f"{'trial':<20} {'learning rate':>13} {'batch':>6} {'epochs':>6} {METRIC:>8}"]
    for number, row in enumerate(trials):
        value = "failed" if row[METRIC] is None else f"{row[METRIC]:.4f}"
        mark = "  <- winner" if number == 0 else ""
        if row["error"]:
            mark += f"  ({row['error']})"
        elif row["epochs"] < run.recipe.train.epochs:
            mark += "  (stopped early)"
        lines.append(
            f"{row['trial']:<20} {row['learning_rate']:>13.2e} {row['batch_size']:>6} "
            f"{row['epochs']:>6} {value:>8}{mark}"
        )
    return lines


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("tune")
