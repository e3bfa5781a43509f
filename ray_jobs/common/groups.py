"""Groups of workers that train what a search's trials put up on its board."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_jobs.common.board import NAME, Board
from ray_jobs.common.fine_tuning import build_trainer
from ray_jobs.common.given_back import room_given_back
from ray_jobs.common.lost_workers import what_ended
from ray_jobs.common.training_group import DRIVER_CPUS
from ray_jobs.common.work import Training
from recsys.artifacts.run import Run
from recsys.errors import RecipeError, cause_of

#: Calls that may wait on a board at once: each worker of each group, and each trial, has one.
MOST_CALLS = 10_000


@dataclass(frozen=True)
class FromBoard:
    """Trainings that a group takes from the board; see `work.Work`."""

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
def groups_at_work(run: Run, folder: Path) -> Iterator[None]:
    """A board, and groups of workers that train what is put up there, until the block ends.

    Args:
        run: of the trainings.
        folder: of the search.
    """
    import ray

    actor: Any = ray.remote(Board)
    options = {"name": NAME, "num_cpus": 0, "max_concurrency": MOST_CALLS}
    board = actor.options(**options).remote(run.recipe.train.max_failures, Starting(run, folder))
    with room_given_back():
        try:
            yield
            ray.get(board.close.remote())
        finally:
            ray.kill(board)  # and with it the groups, which are its own


@dataclass(frozen=True)
class Starting:
    """Starts groups of workers, from the board's process."""

    run: Run
    folder: Path

    def __call__(self, group: int) -> Any:
        """Start one; returns what can be waited for."""
        import ray

        board = ray.get_runtime_context().current_actor
        # Its process ends with it: kept for other tasks, it would keep Ray Train's controller too.
        work: Any = ray.remote(num_cpus=DRIVER_CPUS, max_retries=0, max_calls=1)(_work)
        return work.remote(self.run, self.folder, board, group)


def _work(run: Run, folder: Path, board: Any, group: int) -> None:
    """One group's life: a whole run of Ray Train."""
    build_trainer(
        run, folder / f"group-{group}", FromBoard(board, group),
        _telling(board, group), max_failures=-1,
    ).fit()  # fmt: skip


def _telling(board: Any, group: int) -> Any:
    """A callback of Ray Train's that tells the board what ended a group's workers."""
    from ray.train import UserCallback

    class Telling(UserCallback):
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Any]) -> None:
            import ray

            errors = list(worker_exceptions.values())
            ours = next((found for each in errors if (found := cause_of(each))), None)
            text = what_ended(worker_exceptions)
            if not ray.get(board.crashed.remote(group, ours, text)):
                # Ray Train takes this for a fault of its controller, and starts no other workers.
                raise ours or RuntimeError(text)

    return Telling()
