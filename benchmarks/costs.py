"""What a piece of work costs: wall time and peak memory of this process and its children."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread


@dataclass(frozen=True)
class Cost:
    """What a model took, fit and answers together.

    Attributes:
        seconds: wall time.
        peak_mb: largest resident memory of this process and all below it, beyond what was there.
    """

    seconds: float
    peak_mb: float


@contextmanager
def costing() -> Iterator[Callable[[], Cost]]:
    """Measure the block; the value is a function that tells the cost once it is over."""
    import psutil

    process = psutil.Process()

    def resident() -> float:
        total = 0
        for each in [process, *process.children(recursive=True)]:
            try:
                total += each.memory_info().rss
            except psutil.Error:  # it has ended
                continue
        return total / 1e6

    over, peak, started = Event(), [resident()], time.monotonic()
    before = peak[0]

    def watch() -> None:
        while not over.wait(0.5):
            peak[0] = max(peak[0], resident())

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    seconds = [0.0]
    try:
        yield lambda: Cost(seconds[0], peak[0] - before)
    finally:
        seconds[0] = time.monotonic() - started
        over.set()
        watcher.join()
