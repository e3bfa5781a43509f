"""Give up a training at once where an error of ours ended a worker: it would come again.

Ray Train replaces a group of workers `train.max_failures` times, whatever ended it. That is right
for a lost machine. A loss that is not a number, or a sample that holds nothing, is the same the
next time, half a minute later.
"""

from __future__ import annotations

from typing import Any

from recsys.errors import RaycommendError, cause_of


def giving_up() -> Any:
    """A callback of Ray Train's that raises the first error of ours among the workers'."""
    from ray.train import UserCallback

    class GivingUp(UserCallback):
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Any]) -> None:
            for error in worker_exceptions.values():
                # What is raised here Ray Train takes for a fault of its controller, which it does
                # not try again.
                if ours := cause_of(error):
                    raise ours

    return GivingUp()


def failure_of(error: object) -> RaycommendError | None:
    """The error of ours in what Tune keeps of a trial: an exception, the text of one, or None."""
    if isinstance(error, str):
        error = RuntimeError(error)
    return cause_of(error) if isinstance(error, BaseException) else None


def reason_of(error: object) -> str | None:
    """Why a trial failed, in one clause; None if it did not. See `failure_of`."""
    if error is None:
        return None
    if ours := failure_of(error):
        return ours.problem
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
