"""What is printed while a model trains: one line an epoch.

The workers' own output stays in Ray's logs; it would drown these lines.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recsys.artifacts.checkpoint import PROGRESS

POLL_S = 0.5


def epoch_line(point: dict[str, Any], num_epochs: int, metric: str) -> str:
    """One epoch's loss, validation metric, if there was a validation, and seconds."""
    validated = ""
    if metric in point:
        validated = (
            f", validation {metric} {point[metric]:.4f} on {point['num_valid']:,.0f} baskets"
        )
    return (
        f"epoch {point['epoch']}/{num_epochs}: loss {point['loss']:.4f}{validated} "
        f"({point['train_s']:.0f} s training, {point['valid_s']:.0f} s validation)"
    )


@contextmanager
def printing_epochs(run: Path, line: Callable[[dict[str, Any]], str]) -> Iterator[None]:
    """Print the line of each epoch of a training run as its checkpoint appears in `run`.

    An epoch of an earlier start is not printed again.
    """
    seen = len(latest_curve(run))
    done = threading.Event()

    def follow() -> None:
        nonlocal seen
        while True:
            ending = done.wait(POLL_S)
            for point in latest_curve(run)[seen:]:
                print(f"    {line(point)}", flush=True)
                seen += 1
            if ending:
                return

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join()


def latest_curve(run: Path) -> list[dict[str, Any]]:
    """The longest curve among the checkpoints that lie there now."""
    curves: list[list[dict[str, Any]]] = [[]]
    for path in run.glob(f"checkpoint_*/{PROGRESS}"):
        try:
            curves.append(json.loads(path.read_text())["curve"])
        except (OSError, ValueError):  # just being written, or just replaced by a better one
            continue
    return max(curves, key=len)
