"""The arithmetic of `recsys plan`: beside a real run, how it grows, what it names."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.config import Recipe, load_recipe, recipe_from_dict
from recsys.errors import RecipeError
from recsys.planning import rates
from recsys.planning.estimates import Estimate
from recsys.planning.report import ADVICE, NIGHT_H, Plan
from recsys.planning.workload import Machines, Workload

ROOT = Path(__file__).parents[3]
DEMO = Workload(**rates.DEMO)
HERE = Machines(nodes=1, cores=2, gpus=0, memory_gb=24)
CLUSTER = Machines(nodes=8, cores=32, gpus=0, memory_gb=128)
LARGE = Workload(events=10**9, items=10**7, users=10**8, texts=10**7)


def recipe(**sections: object) -> Recipe:
    cuts = {"valid": "2024-10-01", "test": "2024-11-01"}
    return recipe_from_dict({"name": "x", "data": {"source": "x", "cuts": cuts}, **sections})


def jobs(log: Workload, machines: Machines, given: Recipe) -> dict[str, Estimate]:
    return {job.job: job for job in Plan.of(log, machines, given).jobs}


def test_the_demo_takes_what_is_planned() -> None:
    """Within a quarter, beside the seconds that stand in the results."""
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    line = r"prepare (\d+), tune (\d+)\s.*?embed (\d+), evaluate (\d+) with 7"
    measured = re.search(line, results, re.DOTALL)
    assert measured
    prepare, tune, embed, evaluate = map(int, measured.groups())
    planned = {
        name: sum(job.seconds.values())
        for name, job in jobs(DEMO, HERE, load_recipe(ROOT / "recipes" / "demo.yaml")).items()
    }
    assert planned["prepare"] == pytest.approx(prepare, rel=0.25)
    assert planned["text store"] + planned["tune"] == pytest.approx(tune, rel=0.25)
    assert planned["embed"] == pytest.approx(embed, rel=0.25)
    assert planned["evaluate"] == pytest.approx(evaluate, rel=0.25)


def test_the_documentation_tells_what_is_planned() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    told = [
        [int(cell) for cell in row.split("|")]
        for row in re.findall(r"^\|.*\| planned \|(.*)\|$", page, re.MULTILINE)
    ]
    shop = Workload(events=519_609, items=3_922, users=5_766, texts=3_786)
    short = recipe(
        tune={"num_trials": 1, "space": {"train.batch_size": {"choice": [32]}}}, train={"epochs": 2}
    )
    planned = []
    for log, given in ((DEMO, load_recipe(ROOT / "recipes" / "demo.yaml")), (shop, short)):
        seconds = {name: job.hours * 3600 for name, job in jobs(log, HERE, given).items()}
        tune = seconds["text store"] + seconds["tune"]
        planned.append([seconds["prepare"], tune, seconds["embed"], seconds["evaluate"]])
    assert told == [[round(each) for each in row] for row in planned]


def test_the_demo_needs_the_memory_that_is_planned() -> None:
    """Of all processes together, within a third."""
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    measured = re.search(r"all processes together held ([\d.]+) GB at most", results)
    assert measured
    planned = jobs(DEMO, HERE, load_recipe(ROOT / "recipes" / "demo.yaml")).values()
    assert max(job.node_gb for job in planned) == pytest.approx(float(measured[1]), rel=0.34)


@pytest.mark.parametrize("factor", [10, 100])
def test_time_grows_with_the_log_and_falls_with_machines(factor: int) -> None:
    long = replace(DEMO, events=DEMO.events * factor, users=DEMO.users * factor)
    before, after = (jobs(log, HERE, recipe())["prepare"].seconds for log in (DEMO, long))
    assert after["relations"] == pytest.approx(factor * before["relations"])
    assert after["start"] == before["start"]
    spread = jobs(long, replace(HERE, nodes=factor), recipe())["prepare"].seconds
    for step in ("split and build", "relations"):
        assert spread[step] == pytest.approx(after[step] / factor)


def test_texts_are_compared_with_all_texts() -> None:
    few, many = (
        jobs(replace(LARGE, texts=texts), CLUSTER, recipe())["text store"].seconds
        for texts in (10_000, 100_000)
    )
    assert many["similar texts"] == pytest.approx(100 * few["similar texts"])
    assert many["encode"] == pytest.approx(10 * few["encode"])


def test_the_first_wall_is_what_exceeds_its_limit_most() -> None:
    plan = Plan.of(LARGE, CLUSTER, recipe())
    walls = plan.walls()
    assert [wall.share for wall in walls] == sorted((wall.share for wall in walls), reverse=True)
    assert walls[0].share > 1
    (line,) = [line for line in plan.lines() if line.startswith("first wall:")]
    assert str(walls[0]) in line and walls[0].part in line
    assert any(wall.limit == NIGHT_H for wall in walls)


def test_where_all_fits_it_says_how_far() -> None:
    plan = Plan.of(DEMO, HERE, recipe())
    (line,) = [line for line in plan.lines() if "the first wall" in line]
    room = plan.room()
    assert room > 1 and f"{room:.2g} times as large" in line
    assert plan.times(0.99 * room).walls()[0].share <= 1
    assert plan.times(1.01 * room).walls()[0].share > 1
    assert Plan.of(LARGE, CLUSTER, recipe()).room() < 1


def test_advice_is_for_parts_that_there_are() -> None:
    """And names keys that the recipe has, as its settings show."""
    parts = set()
    for given in (recipe(), recipe(pretrain={"epochs": 1})):
        for log, machines in ((DEMO, HERE), (LARGE, HERE), (LARGE, CLUSTER)):
            for job in Plan.of(log, machines, given).jobs:
                parts |= job.seconds.keys() | job.process_gb.keys()
    assert ADVICE.keys() <= parts
    from recsys.config import known_keys

    named = {key for advice in ADVICE.values() for key in re.findall(r"[a-z]+\.[a-z_]+", advice)}
    assert named and named <= set(known_keys())


def test_the_recipe_decides() -> None:
    plain = jobs(LARGE, CLUSTER, recipe())
    sampled = jobs(LARGE, CLUSTER, recipe(evaluate={"max_rows": 1000}))
    assert sampled["evaluate"].hours < plain["evaluate"].hours / 100
    bounded = jobs(LARGE, CLUSTER, recipe(data={
        "source": "x", "memory_gb": 4, "cuts": {"valid": "2024-10-01", "test": "2024-11-01"}
    }))  # fmt: skip
    assert bounded["prepare"].node_gb < plain["prepare"].node_gb / 2
    assert "pretrain" in jobs(LARGE, CLUSTER, recipe(pretrain={"epochs": 1}))
    assert "pretrain" not in plain
    redis = jobs(LARGE, CLUSTER, recipe(serve={"state": {"backend": "redis"}}))["serve"]
    assert redis.disk_gb.keys() == {"users, in Redis's memory"}
    full = jobs(LARGE, CLUSTER, recipe(model={"tuning": "full"}))["embed"]
    assert full.seconds["encode"] == pytest.approx(6 * plain["embed"].seconds["encode"])


def test_gpus_are_counted_where_they_train() -> None:
    given = recipe(train={"use_gpu": True, "precision": "bfloat16"})
    fast = jobs(LARGE, replace(CLUSTER, gpus=1), given)["tune"]
    assert fast.seconds["epochs"] < jobs(LARGE, CLUSTER, recipe())["tune"].seconds["epochs"] / 10
    with pytest.raises(RecipeError, match="too few GPUs"):
        Plan.of(LARGE, CLUSTER, given)


def test_a_training_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"\[train.num_workers\] .* too few cores"):
        Plan.of(DEMO, HERE, recipe(train={"num_workers": 3}))


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e30", "ten", "", "1.5", "1,000"])
def test_a_number_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=r"\[--events\]"):
        Workload.of(text, "10", "1", None)


def test_numbers_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"\[--users\] more than there are events"):
        Workload.of("10", "10", "11", None)
    with pytest.raises(RecipeError, match=r"\[--texts\] more than there are items"):
        Workload.of("10", "10", "1", "11")
    assert Workload.of("1e3", "10", "1e1", None) == Workload(1000, 10, 10, 10)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (("0", "1", "0", "1"), "--nodes"),
        (("1", "0", "0", "1"), "--cores"),
        (("1", "1", "-1", "1"), "--gpus"),
        (("1", "1", "0", "nan"), "--memory-gb"),
    ],
)
def test_machines_that_cannot_be_are_refused(given: tuple[str, ...], name: str) -> None:
    with pytest.raises(RecipeError, match=rf"\[{name}\]"):
        Machines.of(*given)
    assert Machines.of("1", None, "0", None).cores >= 1
