"""Tasks of `prepare` and `exposures` on Ray Data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from ray_jobs.common.cluster import connected
from recsys.config import Recipe
from recsys.preparation.memory import tasks_at_once
from recsys.preparation.preparing import Rows, RunTasks, Task


@contextmanager
def tasks_on(recipe: Recipe) -> Iterator[RunTasks]:
    """Runs tasks on Ray Data, one Ray task a row, as many at once as `data.memory_gb` allows."""
    with connected(recipe.ray):
        yield partial(_each, tasks_at_once(recipe.data))


def _each(at_once: int, rows: Rows, task: Task) -> Rows:
    import ray
    import ray.data

    numbered = [{"order": order, **row} for order, row in enumerate(rows)]
    most = at_once * sum(node["Alive"] for node in ray.nodes())
    table = ray.data.from_items(numbered, override_num_blocks=len(rows))
    done = table.map(task, concurrency=min(most, len(rows))).take_all()
    return sorted(done, key=lambda row: row["order"])
