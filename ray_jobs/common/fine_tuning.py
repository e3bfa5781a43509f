"""Data-parallel fine-tuning on Ray Train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray_jobs.common.giving_up import giving_up
from ray_jobs.common.kept import Checkpoints
from ray_jobs.common.training_group import group_of_workers
from ray_jobs.common.work import One, Start, Training, Work
from recsys.artifacts.run import Run
from recsys.config import recipe_from_dict
from recsys.errors import RecipeError
from recsys.training.pretraining.adapted import bring_adapted


def trainer_of(
    run: Run,
    checkpoints: Checkpoints,
    remarks: Path,
    again: int | None = None,
    start: Start | None = None,
) -> Any:
    """The Ray Train trainer of one training under the run's recipe.

    Args:
        run: of the training.
        checkpoints: of the training.
        remarks: file of lines for whoever waits.
        again: see `Training`.
        start: likewise.
    """
    checkpoints.tell_damaged()
    work = One(Training(run.recipe.resolved(), str(checkpoints.run), again, start))
    callback = giving_up(run.recipe.train.max_failures, remarks)
    return build_trainer(run, checkpoints.run, work, callback)


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
            "recipe": run.recipe.resolved(),
            "prepared": str(run.prepared.folder),
            "store": str(run.text_store_folder),
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

    recipe, work = recipe_from_dict(config["recipe"]), config["work"]
    bring_adapted(recipe)
    prepared, store = Path(config["prepared"]), Path(config["store"])
    group = Group(recipe.shared, prepared, store, is_elastic=recipe.train.is_elastic)
    for training in work.trainings(group.life):
        loop = Loop(training, group)
        try:
            loop.resume()
            loop.check_samples()
            loop.judge_start()
            while not loop.is_done():
                loop.epoch()
                if not work.wants_more(training, loop.progress.curve[-1], group.rank):
                    break
            else:
                work.done(training, group.rank)
        except RecipeError as error:
            # All workers come upon it at the same place: they go on to the next one together.
            work.failed(training, error, group.rank)
