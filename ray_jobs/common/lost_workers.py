"""What ended a group's workers, in one clause, and how whoever waits for them hears of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ray_jobs.common.progress import POLL_S, looking

#: What `standstill` tells.
_STOOD = re.compile(r"its loop has stood still for \d+ s")
#: What gloo and NCCL say of a sum that some worker does not take part in.
_WAITED = re.compile(r"[Tt]imed out waiting (\d+)\s?ms|Timeout\(ms\)=(\d+)")


def what_ended(errors: Mapping[int, Exception]) -> str:
    """What ended a group's workers, in one clause.

    A worker that hangs is found in one of three ways, each after `train.hang_minutes`: its process
    does not answer Ray Train, another worker has waited for its part of a sum for so long, or it is
    alone and its loop stands still (`ray_jobs.common.standstill`).

    Args:
        errors: of the workers by rank; those of some may only follow from another's.
    """
    from ray.exceptions import RayActorError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckTimeoutError

    for rank, error in errors.items():
        if isinstance(error, WorkerHealthCheckTimeoutError):
            return f"worker {rank} hangs: it does not answer (train.hang_minutes)"
    for rank, error in errors.items():
        if isinstance(getattr(error, "health_check_failure", None), RayActorError):
            node = " with its node" if "node has died" in str(error) else ""
            return f"worker {rank} was lost{node}"
    for rank, error in errors.items():
        if found := _STOOD.search(str(error)):
            return f"worker {rank} hangs: {found[0]} (train.hang_minutes)"
    for rank, error in errors.items():
        if found := _WAITED.search(str(error)):
            seconds = int(found[1] or found[2]) / 1000
            return f"a worker hangs: worker {rank} has waited for it {seconds:g} s"
    for rank, error in errors.items():
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"worker {rank} failed: {lines[-1] if lines else type(error).__name__}"
    return "nobody knows what"


@contextmanager
def remarks_printed() -> Iterator[Path]:
    """Print the lines of a file as they come; gives the file.

    Ray Train's controller writes them. It runs on the node of the process that waits for it, and
    what it prints itself stays in Ray's logs.
    """
    with tempfile.TemporaryDirectory(prefix="raycommend-remarks-") as folder:
        remarks, num_seen = Path(folder) / "remarks.txt", 0
        remarks.touch()

        def look() -> None:
            nonlocal num_seen
            for line in remarks.read_text().splitlines(keepends=True)[num_seen:]:
                if line.endswith("\n"):
                    print(f"    {line}", end="", flush=True)
                    num_seen += 1

        with looking(look, POLL_S):
            yield remarks
