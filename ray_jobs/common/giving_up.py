"""Give up a training at once where an error of ours ended a worker: it would come again.

Ray Train replaces a group of workers `train.max_failures` times, whatever ended it. That is right
for a lost machine. A loss that is not a number, or a sample that holds nothing, is the same the
next time, half a minute later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recsys.errors import NoSpaceError, RaycommendError, cause_of


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


class TrialError(Exception):
    """Ends a trial; its text is the class of an error of ours and the problem.

    Tune writes a trial's error as text and as a pickle, and no pickle is read here.
    """


#: A `TrialError` at the end of a stack trace.
_IN_TEXT = re.compile(rf"{TrialError.__name__}: (\w+): (.+)")


@contextmanager
def told_in_text() -> Iterator[None]:
    """Raise an error of ours, or one that it is behind, as a `TrialError`."""
    try:
        yield
    except Exception as error:
        if ours := cause_of(error):
            raise TrialError(f"{type(ours).__name__}: {ours.problem}") from error
        raise


def failure_of(error: object) -> RaycommendError | None:
    """The error of ours in what Tune keeps of a trial: an exception, the text of one, or None."""
    if isinstance(error, BaseException) and (ours := cause_of(error)):
        return ours
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    if found := _IN_TEXT.findall(text):
        kind, problem = found[-1]
        if kind == NoSpaceError.__name__:
            return NoSpaceError.on(None, ())
        return RaycommendError(problem, fix="see the trial's error.txt")
    return cause_of(RuntimeError(text)) if isinstance(error, str) else None


def reason_of(error: object) -> str | None:
    """Why a trial failed, in one clause; None if it did not. See `failure_of`."""
    if error is None:
        return None
    if ours := failure_of(error):
        return ours.problem
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
