from __future__ import annotations

import json
import time

import pytest
from tiny import tiny_log, tiny_recipe

from ray_jobs import prepare, train, tune
from ray_jobs.cluster import connected
from recsys.config import Recipe
from recsys.errors import RecipeError


@pytest.mark.parametrize(
    ("workers", "cpus", "most", "expected"),
    [(2, 4, None, 1), (2, 8, None, 3), (1, 8, None, 6), (1, 8, 2, 2), (7, 8.5, None, 1)],
)
def test_trials_at_once_leave_a_cpu_for_reading(
    workers: int,
    cpus: float,
    most: int | None,
    expected: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    recipe = _recipe(tmp_path_factory, workers, most)
    assert tune.most_concurrent(recipe, cpus, 0) == expected


@pytest.mark.parametrize(("workers", "cpus"), [(2, 3), (8, 8), (1, 1)])
def test_a_cluster_too_small_for_one_trial_is_refused(
    workers: int, cpus: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(RecipeError, match="train.num_workers"):
        tune.most_concurrent(_recipe(tmp_path_factory, workers, None), cpus, 0)


def _recipe(factory: pytest.TempPathFactory, workers: int, most: int | None) -> Recipe:
    folder = factory.mktemp("recipe")
    return tiny_recipe(folder, train={"num_workers": workers}, tune={"max_concurrent": most})


@pytest.mark.ray
def test_search_ends_with_a_table_and_gives_the_cpus_back(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("tune")
    tiny_log(folder / "log")
    recipe = tiny_recipe(folder, train={"epochs": 2}, tune={"num_trials": 2})
    with connected(recipe.ray):
        import ray

        prepare.run(recipe)
        tune.run(recipe)
        # Trials that ASHA stopped have leaked their workers in older releases (ray#54305).
        total = ray.cluster_resources()["CPU"]
        deadline = time.monotonic() + 60
        while ray.available_resources().get("CPU", 0) < total and time.monotonic() < deadline:
            time.sleep(0.5)
        assert ray.available_resources().get("CPU", 0) == total
        data = json.loads((recipe.root / train.WINNER_FILE).read_text())
        trials = data["trials"]
        assert len(trials) == 2
        assert all(trial["error"] is None for trial in trials)
        low, high = recipe.tune.learning_rate.low, recipe.tune.learning_rate.high
        assert all(low <= trial["learning_rate"] <= high for trial in trials)
        assert all(trial["batch_size"] in recipe.tune.batch_size for trial in trials)
        scores = [trial[train.METRIC] for trial in trials]
        assert scores == sorted(scores, reverse=True)
        assert data["recipe"]["train"]["learning_rate"] == trials[0]["learning_rate"]
        assert data["metrics"][train.METRIC] == scores[0]
        before = (recipe.root / train.WINNER_FILE).read_bytes()
        tune.run(recipe)  # resumes: nothing is left to do
        assert (recipe.root / train.WINNER_FILE).read_bytes() == before
