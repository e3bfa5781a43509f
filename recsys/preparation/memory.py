"""Memory of a preparation: how many tasks run at once, and into how many buckets a log is split.

Every task is cut to size beforehand: it reads a part of at most two million rows of the log, a
bucket of about one million, or eight million pairs of items. So the bound on all of them is a
number of tasks.
"""

from __future__ import annotations

import os
from typing import Final

from recsys.config import Data

#: What a task holds at most, beside what all of them share.
TASK_GB: Final = 1.0
#: Rows of the log in a bucket of users, on average at most.
ROWS_PER_BUCKET: Final = 1_000_000


def tasks_at_once(data: Data) -> int:
    """Tasks that may run at once on a machine; at least one."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    allowed = machine / 2 if data.memory_gb is None else data.memory_gb
    return max(1, int(allowed / TASK_GB))


def buckets_of(data: Data, num_rows: int) -> int:
    """Buckets that a log is split into: `data.num_buckets`, doubled until they are small enough.

    It depends on the log and the recipe alone, so every machine writes the same histories.

    Args:
        data: of the recipe.
        num_rows: of the log and the live events.
    """
    num_buckets = data.num_buckets
    while num_rows > num_buckets * ROWS_PER_BUCKET:
        num_buckets *= 2
    return num_buckets
