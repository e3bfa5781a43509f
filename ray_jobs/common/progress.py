"""What is printed while a model trains: one line an epoch.

The workers' own output stays in Ray's logs; it would drown these lines.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from ray_jobs.common.kept import Checkpoints
from recsys.errors import StorageError

#: Seconds between two looks at the checkpoints; at a store is looked less often.
POLL_S, POLL_STORE_S = 0.5, 3.0


def epoch_line(point: dict[str, Any], num_epochs: int, metric: str) -> str:
    """One epoch's loss, validation metric, if there was a validation, and seconds."""
    validated = ""
    if metric in point:
        validated = (
            f", validation {metric} {point[metric]:.4f} on {point['num_valid']:,.0f} baskets"
        )
    # A warm training tells of what it starts from before it has a loss.
    loss = f"loss {point['loss']:.4f}" if "loss" in point else "as it starts"
    return (
        f"epoch {point['epoch']}/{num_epochs}: {loss}{validated} "
        f"({point['train_s']:.0f} s training, {point['valid_s']:.0f} s validation)"
    )


@contextmanager
def printing_epochs(
    checkpoints: Checkpoints, line: Callable[[dict[str, Any]], str]
) -> Iterator[None]:
    """Print the line of each epoch of a training as its checkpoint appears.

    An epoch of an earlier start is not printed again.
    """
    seen = len(checkpoints.curve_now())
    poll_s = POLL_S if checkpoints.shared.location is None else POLL_STORE_S

    def look() -> None:
        nonlocal seen
        with suppress(StorageError):  # the training waits for the store; the next look tells
            for point in checkpoints.curve_now()[seen:]:
                print(f"    {line(point)}", flush=True)
                seen += 1

    with looking(look, poll_s):
        yield


@contextmanager
def looking(look: Callable[[], None], every_s: float) -> Iterator[None]:
    """Call a function again and again while the block runs, and once after its end."""
    done = threading.Event()

    def follow() -> None:
        while not done.wait(every_s):
            look()
        look()

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join()
