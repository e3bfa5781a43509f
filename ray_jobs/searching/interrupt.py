"""Ctrl-C during a search: its state is saved first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def saved_when_interrupted() -> Iterator[None]:
    """Let Ctrl-C save the search's state, and then interrupt.

    By itself Tune catches the signal and comes back as if the search were over. It leaves SIGINT
    alone if told so, and answers SIGUSR1 in the same way: the first Ctrl-C is handed on as that.
    """
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    came = threading.Event()

    def hand_on(number: int, frame: FrameType | None) -> None:
        save = signal.getsignal(signal.SIGUSR1)
        if came.is_set() or not callable(save):
            raise KeyboardInterrupt
        came.set()
        save(number, frame)

    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGUSR1)]
    signal.signal(signal.SIGINT, hand_on)
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    if came.is_set():
        raise KeyboardInterrupt
