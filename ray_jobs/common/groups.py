"""Groups of workers that train what a search's trials put up on its board."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_jobs.common.board import Board
from ray_jobs.common.fine_tuning import Training, build_trainer
from ray_jobs.common.training_group import DRIVER_CPUS
from recsys.artifacts.run import Run
from recsys.errors import RecipeError, cause_of

#: Calls that may wait on a board at once: each worker of each group, and each trial, has one.
MOST_CALLS = 10_000


@dataclass(frozen=True)
class FromBoard:
    """Trainings that a group takes from the board; see `fine_tuning.Work`."""

    board: Any
    group: int

    def trainings(self, life: float) -> Iterator[Training]:
        """Whatever is put up, until the board is closed."""
        import ray

        number = 0
        while training := ray.get(self.board.take.remote(self.group, life, number)):
            yield training
            number += 1

    def wants_more(self, training: Training, point: dict[str, Any], rank: int) -> bool:
        """Tell the trial of an epoch, and wait for its answer."""
        import ray

        if rank == 0:
            ray.get(self.board.heard.remote(training.name, point))
        return bool(ray.get(self.board.wants_more.remote(training.name, point["epoch"])))

    def done(self, training: Training, rank: int) -> None:
        """Tell the trial that there is no further epoch."""
        import ray

        if rank == 0:
            ray.get(self.board.done.remote(training.name))

    def failed(self, training: Training, error: RecipeError, rank: int) -> None:
        """Tell the trial, and go on with the next training."""
        import ray

        if rank == 0:
            ray.get(self.board.done.remote(training.name, error))


@contextmanager
def groups_at_work(run: Run, folder: Path, num_groups: int) -> Iterator[Any]:
    """A board, and groups of workers that train what is put up there, until the block ends.

    Args:
        run: of the trainings.
        folder: of the search.
        num_groups: how many train at once.
    """
    import ray

    board = (
        ray.remote(Board)
        .options(num_cpus=0, max_concurrency=MOST_CALLS)
        .remote(run.recipe.train.max_failures)
    )
    work = ray.remote(_work).options(num_cpus=DRIVER_CPUS, max_retries=0)
    groups = [work.remote(run, folder, board, number, num_groups) for number in range(num_groups)]
    try:
        yield board
    except BaseException:
        for group in groups:
            ray.cancel(group, force=True)
        raise
    ray.get(board.close.remote())
    ray.wait(groups, num_returns=num_groups)


def _work(run: Run, folder: Path, board: Any, group: int, num_groups: int) -> None:
    """One group's life: a whole run of Ray Train."""
    import ray

    try:
        build_trainer(
            run, folder / f"group-{group}", FromBoard(board, group),
            callbacks=[_telling(board, group)], max_failures=-1,
        ).fit()  # fmt: skip
    except Exception as error:
        gone = cause_of(error) or error
        ray.get(board.group_gone.remote(group, num_groups, gone))


def _telling(board: Any, group: int) -> Any:
    """A callback of Ray Train's that tells the board what ended a group's workers."""
    from ray.train import UserCallback

    class Telling(UserCallback):
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Any]) -> None:
            import ray

            errors = list(worker_exceptions.values())
            ours = next((found for each in errors if (found := cause_of(each))), None)
            text = str(errors[0]).strip().splitlines()[-1] if errors and str(errors[0]) else ""
            if not ray.get(board.crashed.remote(group, ours, text)):
                # Ray Train takes this for a fault of its controller, and starts no other workers.
                raise ours or RuntimeError(text)

    return Telling()
