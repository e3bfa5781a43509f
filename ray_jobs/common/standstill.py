"""A worker that trains alone and stands still, though its process answers.

Of several workers, those that wait for one notice (see `training_group`).
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ray_jobs.common.progress import POLL_S, looking

if TYPE_CHECKING:
    from torch import nn

    from recsys.config import Train


@contextmanager
def noticed(model: nn.Module, train: Train, world: int) -> Iterator[None]:
    """Let Ray Train replace this worker if it is alone and stands still while the block runs."""
    if world > 1:
        yield
        return
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
    from ray.train.v2._internal.execution.context import get_train_context

    runner = get_train_context().execution_context.training_thread_runner
    errors = runner.get_exception_queue()  # of threads beside the loop's

    def tell(stack: str, stood_s: float) -> None:
        told = f"its loop has stood still for {stood_s:.0f} s"
        errors.put(UserExceptionWithTraceback(RuntimeError(told), f"{stack}\n{told}"))

    with watched(model, 60 * train.hang_minutes, tell):
        yield


@contextmanager
def watched(model: nn.Module, most_s: float, tell: Callable[[str, float], None]) -> Iterator[None]:
    """Tell, once, if this thread stands still in the block; it moves where the model is called.

    Args:
        model: the forward pass of it, or of one of its children, is a sign of life.
        most_s: seconds without one.
        tell: is told where the thread stands, as a stack trace, and for how many seconds.
    """
    thread, last = threading.get_ident(), time.monotonic()
    is_told = False

    def beat(*_: object) -> None:
        nonlocal last
        last = time.monotonic()

    def look() -> None:
        nonlocal is_told
        stood_s = time.monotonic() - last
        if stood_s > most_s and not is_told:
            is_told = True
            tell("".join(traceback.format_stack(sys._current_frames()[thread])), stood_s)

    hooks = [each.register_forward_pre_hook(beat) for each in (model, *model.children())]
    try:
        with looking(look, min(POLL_S, most_s / 4)):
            yield
    finally:
        for hook in hooks:
            hook.remove()
