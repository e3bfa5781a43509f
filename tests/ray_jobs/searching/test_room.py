"""How many trials free resources hold."""

from __future__ import annotations

from typing import Any

import pytest
from small_recipe import changed

from ray_jobs.searching.room import trials_at_once
from recsys.config import Recipe, recipe_from_dict
from recsys.errors import RecipeError


def recipe(workers: int = 2, **tune: Any) -> Recipe:
    raw = changed("tune", {"num_trials": 8, **tune})
    return recipe_from_dict(raw | {"train": {"num_workers": workers}})


@pytest.mark.parametrize(
    ("cpus", "grows", "trials"),
    [
        (4, False, 1),
        (6, False, 2),
        (40, False, 8),  # no more than there are
        (0, True, 1),  # none is there yet: one is asked for
        (6, True, 2),
        (40, True, 8),
    ],
)
def test_what_free_cpus_hold(cpus: float, grows: bool, trials: int) -> None:
    assert trials_at_once(recipe(), cpus, 0, grows=grows) == trials


def test_gpus_bound_it_too() -> None:
    on_gpus = recipe_from_dict(recipe().resolved() | {"train": {"num_workers": 2, "use_gpu": True}})
    assert trials_at_once(on_gpus, 64, 4, grows=False) == 2
    with pytest.raises(RecipeError, match="2 GPUs"):
        trials_at_once(on_gpus, 64, 1, grows=False)


def test_what_can_never_be_is_refused() -> None:
    assert trials_at_once(recipe(max_concurrent=2), 6, 0, grows=False) == 2
    assert trials_at_once(recipe(max_concurrent=9), 6, 0, grows=True) == 9
    with pytest.raises(RecipeError, match=r"tune.max_concurrent.*holds 2 at once.*at most 2"):
        trials_at_once(recipe(max_concurrent=3), 6, 0, grows=False)
    with pytest.raises(RecipeError, match="train.num_workers"):
        trials_at_once(recipe(workers=9), 6, 0, grows=False)
