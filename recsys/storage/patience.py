"""Asking a store again that does not answer: it may start anew, or the network come back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

#: Seconds for which it is asked again, and the first and the longest pause.
PATIENCE_S, PAUSE_S, MAX_PAUSE_S = 60.0, 0.2, 5.0

_T = TypeVar("_T")


def patiently(work: Callable[[], _T], passes: Callable[[Exception], bool]) -> _T:
    """What some work returns, which is done again where its error may pass.

    Args:
        work: may be done more than once.
        passes: tells of an error whether it may.

    Raises:
        Exception: the last of the errors, or the first that does not pass.
    """
    deadline, pause = time.monotonic() + PATIENCE_S, PAUSE_S
    while True:
        try:
            return work()
        except Exception as error:
            if not passes(error) or time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, MAX_PAUSE_S)
