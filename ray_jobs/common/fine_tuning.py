"""Data-parallel fine-tuning on Ray Train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray_jobs.common.giving_up import giving_up
from ray_jobs.common.kept import tell_damaged
from ray_jobs.common.training_group import group_of_workers
from ray_jobs.common.work import One, Training, Work
from recsys.artifacts.run import Run
from recsys.errors import RecipeError


def trainer_of(run: Run, folder: Path, remarks: Path, again: int | None = None) -> Any:
    """The Ray Train trainer of one training under the run's recipe.

    Args:
        run: of the training.
        folder: of its checkpoints.
        remarks: file of lines for whoever waits.
        again: see `Training`.
    """
    tell_damaged(folder)
    work = One(Training(run.recipe.resolved(), str(folder), again))
    return build_trainer(run, folder, work, giving_up(run.recipe.train.max_failures, remarks))


def build_trainer(
    run: Run,
    folder: Path,
    work: Work,
    callback: Any,
    *,
    max_failures: int | None = None,
) -> Any:
    """The Ray Train trainer of a training, or of several in turn.

    Args:
        run: of the trainings; its recipe says what the group of workers is.
        folder: of what Ray Train notes.
        work: gives the workers their trainings.
        callback: see `group_of_workers`.
        max_failures: likewise.
    """
    return group_of_workers(
        run.recipe,
        train_loop,
        {
            "prepared": str(run.prepared.folder),
            "store": str(run.text_store_folder),
            "is_elastic": run.recipe.train.is_elastic,
            "work": work,
        },
        folder.name,
        folder.parent,
        callback,
        max_failures=max_failures,
    )


def train_loop(config: dict[str, Any]) -> None:
    """What each worker runs: trainings, one after another."""
    from ray_jobs.common.training_loop import Group, Loop

    prepared, store, work = Path(config["prepared"]), Path(config["store"]), config["work"]
    group = Group(prepared, store, is_elastic=config["is_elastic"])
    for training in work.trainings(group.life):
        loop = Loop(training, group)
        try:
            loop.resume()
            loop.check_samples()
            while not loop.is_done():
                loop.epoch()
                if not work.wants_more(training, loop.progress.curve[-1], group.rank):
                    break
            else:
                work.done(training, group.rank)
        except RecipeError as error:
            # All workers come upon it at the same place: they go on to the next one together.
            work.failed(training, error, group.rank)
