"""How many trials a search runs at once: what the cluster's free resources hold, as it grows."""

from __future__ import annotations

import functools
import os
import time
from typing import Any

from ray_jobs.common.cluster import SPARE_CPUS, is_local
from ray_jobs.common.training_group import groups_that_fit
from recsys.config import Recipe
from recsys.errors import RecipeError

#: Seconds between two looks at the cluster.
LOOK_S = 5.0
#: Looks at what others use, half a second apart: a job that has just ended still gives back.
LOOKS, PAUSE_S = 4, 0.5


class Room:
    """Room for trials in the connected cluster.

    What others use is measured once, before the search begins: from then on its own trials come
    and go. A cluster of our own has no others, and does not grow.

    Args:
        recipe: of the search.

    Raises:
        RecipeError: the cluster does not grow, and cannot hold what is asked.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.grows = not is_local(recipe.ray)
        self.others = _used_by_others() if self.grows else {"CPU": 0.0, "GPU": 0.0}
        self.concurrent()

    def concurrent(self) -> int:
        """Trials at once, now."""
        import ray

        there = ray.cluster_resources()
        free = {name: there.get(name, 0) - used for name, used in self.others.items()}
        return trials_at_once(self.recipe, free["CPU"], free["GPU"], grows=self.grows)


def planned(recipe: Recipe) -> str:
    """Trials at once, in words, before there is a cluster.

    Raises:
        RecipeError: see `trials_at_once`; of GPUs only the cluster knows.
    """
    if is_local(recipe.ray) and not recipe.train.use_gpu:
        cpus = (recipe.ray.num_cpus or os.cpu_count() or 1) + SPARE_CPUS
        return str(trials_at_once(recipe, cpus, 0, grows=False))
    return str(recipe.tune.max_concurrent or "as many as the cluster's free resources hold")


def trials_at_once(recipe: Recipe, cpus: float, gpus: float, *, grows: bool) -> int:
    """How many trials free resources hold, or `tune.max_concurrent`.

    Args:
        recipe: of the search.
        cpus: not used by others.
        gpus: likewise.
        grows: whether the cluster may get more.

    Raises:
        RecipeError: it does not grow, and does not hold one trial, or `tune.max_concurrent`.
    """
    tune = recipe.tune
    fit = groups_that_fit(recipe, cpus, gpus, grows=grows)
    if tune.max_concurrent is None:
        return min(fit, tune.num_trials)
    if tune.max_concurrent > fit and not grows:
        raise RecipeError(
            f"the machine holds {fit} at once: their workers would wait for each other",
            field="tune.max_concurrent", value=tune.max_concurrent,
            fix=f"set at most {fit}, or null, or use a cluster (ray.address)",
        )  # fmt: skip
    return tune.max_concurrent


@functools.cache
def _used_by_others() -> dict[str, float]:
    """CPUs and GPUs in use when a process asks first, before it has begun anything itself."""
    import ray

    used: dict[str, list[float]] = {"CPU": [], "GPU": []}
    for look in range(LOOKS):
        time.sleep(PAUSE_S * (look > 0))
        there, free = ray.cluster_resources(), ray.available_resources()
        for name, seen in used.items():
            seen.append(there.get(name, 0.0) - free.get(name, 0.0))
    return {name: max(0.0, min(seen)) for name, seen in used.items()}


def following(recipe: Recipe, drawing: Any) -> Any:
    """A Tune callback that lets more trials be drawn when the cluster has grown.

    It looks for what others use when a search begins or goes on: it is kept with the search.

    Args:
        recipe: of the search.
        drawing: Tune's search algorithm, which has `max_concurrent`.
    """
    from ray import tune

    class Following(tune.Callback):
        room: Room | None = None
        looked = 0.0

        def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
            if time.monotonic() - self.looked < LOOK_S:
                return
            self.room = self.room or Room(recipe)
            self.looked = time.monotonic()
            drawing.max_concurrent = self.room.concurrent()

    return Following()
