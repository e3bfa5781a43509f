"""Whether a group of workers that has ended is replaced, and why a training failed.

Ray Train replaces a group of workers `train.max_failures` times, whatever ended it. That is right
for a lost machine. An error of ours, such as a loss that is not a number, or a sample that holds
nothing, is the same the next time, half a minute later: it ends the training at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray_jobs.common.lost_workers import what_ended
from recsys.errors import NoSpaceError, RaycommendError, cause_of

#: Where the reason stands that one clause does not tell.
SEE_LOGS = "see Ray's logs of the workers"


def giving_up(max_failures: int, remarks: Path) -> Any:
    """A callback of Ray Train's that raises the first error of ours among the workers'.

    Args:
        max_failures: how often lost workers are replaced.
        remarks: file of lines for whoever waits; each loss is one.
    """
    from ray.train import UserCallback

    class GivingUp(UserCallback):
        num_lost = 0

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Any]) -> None:
            # What is raised here Ray Train takes for a fault of its controller, which it does not
            # try again.
            for error in worker_exceptions.values():
                if ours := cause_of(error):
                    raise ours
            self.num_lost += 1
            told = what_ended(worker_exceptions)
            if self.num_lost > max_failures:
                raise lost_too_often(self.num_lost, told)
            with remarks.open("a") as file:
                file.write(f"{told}; {going_on(self.num_lost, max_failures)}\n")

    return GivingUp()


def going_on(num_lost: int, max_failures: int) -> str:
    """What becomes of a training whose workers were lost, in one clause."""
    return f"all start again from the last checkpoint ({num_lost} of {max_failures} times)"


def lost_too_often(num_lost: int, told: str) -> RaycommendError:
    """The error of a training whose workers were lost more than `train.max_failures` times."""
    times = "once" if num_lost == 1 else f"{num_lost} times"
    last = f", the last time: {told}" if told else ""
    return RaycommendError(
        f"its workers were lost {times}{last}", field="train.max_failures", value=num_lost - 1,
        fix=f"{SEE_LOGS}; the same command goes on from the last checkpoint",
    )  # fmt: skip


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
