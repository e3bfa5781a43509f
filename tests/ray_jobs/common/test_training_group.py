"""How many groups of workers a cluster holds, and the refusal of one that is too small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny import tiny_recipe

from ray_jobs.common.training_group import groups_that_fit
from recsys.errors import RecipeError


@pytest.mark.parametrize(
    ("workers", "gpu", "cpus", "gpus", "expected"),
    [
        (2, False, 4, 0, 1),
        (2, False, 8, 0, 3),
        (1, False, 8, 0, 6),
        (7, False, 8.5, 0, 1),
        (2, True, 64, 5, 2),
        (2, True, 8, 99, 3),
    ],
)
def test_groups_of_workers_leave_a_cpu_for_reading(
    workers: int, gpu: bool, cpus: float, gpus: float, expected: int, tmp_path: Path
) -> None:
    recipe = tiny_recipe(tmp_path, train={"num_workers": workers, "use_gpu": gpu})
    for grows in (False, True):
        assert groups_that_fit(recipe, cpus, gpus, grows=grows) == expected


@pytest.mark.parametrize(
    ("workers", "gpu", "cpus"), [(2, False, 3), (8, False, 8), (1, False, 1), (1, True, 64)]
)
def test_a_cluster_that_is_too_small_and_does_not_grow_is_refused(
    workers: int, gpu: bool, cpus: float, tmp_path: Path
) -> None:
    recipe = tiny_recipe(tmp_path, train={"num_workers": workers, "use_gpu": gpu})
    with pytest.raises(RecipeError, match="train.num_workers"):
        groups_that_fit(recipe, cpus, 0, grows=False)
    assert groups_that_fit(recipe, cpus, 0, grows=True) == 1


def test_where_fewer_workers_may_train_one_group_takes_what_there_is(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, train={"num_workers": {"min": 2, "max": 4}})
    fit = [groups_that_fit(recipe, cpus, 0, grows=False) for cpus in (4, 5, 6, 10)]
    assert fit == [1, 1, 1, 2]
    with pytest.raises(RecipeError, match="2 workers needs 2 CPUs"):
        groups_that_fit(recipe, 3, 0, grows=False)


@pytest.mark.parametrize(
    ("settings", "num_cpus", "cpus", "gpus", "told", "fix"),
    [
        # Two CPUs; Ray is told of two more, for what only waits.
        (
            {"num_workers": 3}, None, 4, 0,
            "3 workers needs 3 CPUs (1 each), this machine has 2 CPUs", "at most 2 workers",
        ),
        (
            {"num_workers": 4, "cpus_per_worker": 1.5}, 4, 6, 0,
            "4 workers needs 6 CPUs (1.5 each), ray.num_cpus and this machine give 4 CPUs",
            "at most 3 workers",
        ),
        (
            {"num_workers": 2, "use_gpu": True}, None, 18, 1,
            "2 workers needs 2 CPUs (1 each) and 2 GPUs, this machine has 16 CPUs and 1 GPU",
            "at most 1 worker",
        ),
        (
            {"num_workers": 1, "use_gpu": True}, None, 4, 0,
            "1 worker needs 1 CPU (1 each) and 1 GPU, this machine has 2 CPUs and 0 GPUs",
            "no train.use_gpu",
        ),
    ],
)  # fmt: skip
def test_the_refusal_tells_the_machines_own_numbers(
    settings: dict[str, object], num_cpus: int | None, cpus: float, gpus: float, told: str,
    fix: str, tmp_path: Path,
) -> None:  # fmt: skip
    recipe = tiny_recipe(tmp_path, train=settings, ray={"num_cpus": num_cpus})
    with pytest.raises(RecipeError) as error:
        groups_that_fit(recipe, cpus, gpus, grows=False)
    assert error.value.problem == f"training on {told}"
    assert fix in error.value.fix
    most = re.search(r"at most (\d+)", error.value.fix)
    if most:  # and so many fit
        fewer = {**settings, "num_workers": int(most[1])}
        fitting = tiny_recipe(tmp_path, train=fewer, ray={"num_cpus": num_cpus})
        assert groups_that_fit(fitting, cpus, gpus, grows=False) == 1
