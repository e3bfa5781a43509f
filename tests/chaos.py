"""Killing processes that a run must be able to lose."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def killing_one_worker(runs: Path) -> Iterator[list[int]]:
    """SIGKILL one training worker once the first checkpoint lies in a run; gives whom it killed."""
    killed: list[int] = []
    stop = threading.Event()
    killer = threading.Thread(target=_kill_one, args=(runs, killed, stop))
    killer.start()
    try:
        yield killed
    finally:
        stop.set()
        killer.join()


def _kill_one(runs: Path, killed: list[int], stop: threading.Event) -> None:
    from ray.util.state import list_actors

    while not stop.wait(0.05):
        if not list(runs.glob("*/checkpoint_*/progress.json")):
            continue
        alive = list_actors(
            filters=[("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")]
        )
        if alive:
            os.kill(alive[0].pid, signal.SIGKILL)
            killed.append(alive[0].pid)
            return
