"""`recsys plan`: what is printed, and that a mistake is one line."""

from __future__ import annotations

import json

import pytest
from documents import blocks

from ray_jobs.cli import main
from ray_jobs.plan import fitting
from recsys.planning.workload import Machines

LOG = ["--events", "1e9", "--items", "1e7", "--users", "1e8"]
MACHINES = ["--nodes", "8", "--cores", "32", "--gpus", "1", "--memory-gb", "128"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["plan", *arguments])
    shown = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, shown.out, shown.err


def test_every_job_the_wall_and_what_was_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, *LOG, *MACHINES)
    assert (status, err) == (0, "")
    for job in ("prepare", "text store", "tune", "embed", "evaluate", "serve", "pipeline"):
        assert any(line.startswith(f"{job} ") for line in out.splitlines())
    assert "arithmetic" in out.splitlines()[0]
    assert "first wall: " in out and out.count("\nassumed: ") >= 5


def test_a_program_reads_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, *LOG, *MACHINES, "--json")
    plan = json.loads(out)
    assert status == 0
    assert plan["log"] == {"events": 10**9, "items": 10**7, "users": 10**8, "texts": 10**7}
    assert plan["hours"] == pytest.approx(
        sum(job["hours"] for job in plan["jobs"] if job["job"] != "serve")
    )
    assert plan["walls"][0]["share"] == max(wall["share"] for wall in plan["walls"])


def test_a_recipe_and_overrides_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    demo = ["--config", "recipes/demo.yaml", "--cores", "2"]
    more = run(capsys, *LOG, *demo, "--json", "--set", "tune.num_trials=40")[1]
    less = run(capsys, *LOG, *demo, "--json")[1]
    epochs = [
        next(job["seconds"]["epochs"] for job in json.loads(out)["jobs"] if job["job"] == "tune")
        for out in (more, less)
    ]
    assert epochs[0] == pytest.approx(10 * epochs[1])


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["--events", "nan"], "--events"),
        (["--users", "2e9"], "--users"),
        (["--cores", "half"], "--cores"),
        (["--set", "train.nope=1"], "train.nope"),
        (["--set", "train.num_workers=1000"], "train.num_workers"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], field: str
) -> None:
    status, out, err = run(capsys, *LOG, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("plan: ") and field in err and ". Fix: " in err and err.count("\n") == 1


def test_without_a_recipe_the_machines_are_filled() -> None:
    machines = Machines(nodes=2, cores=8, gpus=0, memory_gb=32)
    assert fitting(machines, []).train.num_workers == 8
    assert fitting(machines, ["train.num_workers=3"]).train.num_workers == 3
    gpus = fitting(Machines(nodes=2, cores=8, gpus=4, memory_gb=32), [])
    assert gpus.train.use_gpu and gpus.train.num_workers == gpus.embed.num_actors == 8


def test_the_documentation_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [each for each in blocks("console") if "recsys plan" in each.text]
    (words,) = block.commands()
    _, out, _ = run(capsys, *words[2:])
    shown = block.text.split("\n", 1)[1]
    assert shown == out[: len(shown)] and len(shown) > 800
