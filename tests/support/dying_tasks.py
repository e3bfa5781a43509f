"""Tasks of `prepare` and models of `evaluate` whose process is killed, the first time that it runs.

Ray's workers do not find this module: it is sent along, see `sent_along`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

Task = Callable[[dict[str, Any]], dict[str, Any]]


@contextmanager
def sent_along() -> Iterator[None]:
    """Send this module's classes to Ray's workers with what they do."""
    from ray import cloudpickle

    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


@contextmanager
def calling(each: Callable[[], None]) -> Iterator[None]:
    """Tell of each call of the library's functions."""

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and "/recsys/" in frame.f_code.co_filename:
            each()

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)


@dataclass
class Counted:
    """Runs tasks here, one after another, and counts the calls that each makes."""

    num_calls: dict[str, int] = field(default_factory=dict)

    def __call__(self, rows: list[dict[str, Any]], task: Task) -> list[dict[str, Any]]:
        """See `RunTasks`."""
        done = []
        for order, row in enumerate(rows):
            name = f"{type(task).__name__}-{order}"
            self.num_calls[name] = 0

            def another(name: str = name) -> None:
                self.num_calls[name] += 1

            with calling(another):
                done.append(task({"order": order, **row}))
        return done


@dataclass(frozen=True)
class Dying:
    """A task that dies at one of its calls of the library's functions, and then does not.

    Args:
        task: what is done.
        at: the call, by name of the task's kind and number of the row.
        marks: folder; a task that has died has a file there.
    """

    task: Task
    at: Mapping[str, int]
    marks: Path

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do it, or die."""
        name = f"{type(self.task).__name__}-{row['order']}"
        mark = self.marks / name
        if mark.exists() or name not in self.at:
            return self.task(row)
        left = self.at[name]

        def another() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)

        with calling(another):
            return self.task(row)


@dataclass(frozen=True)
class DyingModel:
    """A baseline that dies when it is first asked, and then does not.

    Args:
        model: what answers.
        mark: a file that is there once it has died.
    """

    model: Any
    mark: Path

    def scores(self, histories: Any) -> Any:
        """Answer, or die."""
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.model.scores(histories)
