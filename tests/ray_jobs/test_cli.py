"""The command line: one for all jobs, mistakes answered in one line, dry runs that do nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import polars as pl
import pytest
from bundles import make_bundle
from tiny import (
    KEY,
    KEY_ENV,
    prepare_here,
    prepared_in_process,
    tiny_events,
    tiny_items,
    tiny_log,
    tiny_recipe_file,
    write_log,
)

from ray_jobs import cli
from ray_jobs.cli import JOBS
from recsys.artifacts.registry import Registry
from recsys.artifacts.run import Run
from recsys.config import load_recipe
from recsys.errors import GateRefused
from recsys.preparation.kept import KEPT
from recsys.preparation.prepared import PREPARED
from recsys.schema import Col

ROOT = Path(__file__).parents[2]


def recsys(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ray_jobs.cli", *arguments],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def status_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(list(arguments))
    return int(end.value.code or 0)


def test_help_names_every_job() -> None:
    done = recsys("--help")
    assert done.returncode == 0
    assert all(f"  {job} " in done.stdout for job in (*JOBS, "serve", "demo"))


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_a_job_by_module_is_the_same_command(job: str) -> None:
    module = subprocess.run(
        [sys.executable, "-m", f"ray_jobs.{job.replace('-', '_')}", "--help"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert module.returncode == 0, module.stderr
    for option in ("--config FILE", "--set A.B=C", "--dry-run"):
        assert option in module.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["prepare", "--config", "nowhere.yaml"], ["nowhere.yaml", "no such recipe"]),
        (
            ["tune", "--config", "recipes/demo.yaml", "--set", "train.learning_rat=1"],
            ["recipes/demo.yaml", "[train.learning_rat]", "did you mean `train.learning_rate`?"],
        ),
        (
            ["train", "--config", "recipes/demo.yaml", "--set", "train.epochs=none"],
            ["[train.epochs]", "'none'"],
        ),
        (
            ["embed", "--config", "recipes/demo.yaml", "--set", "model.dim=65"],
            ["model.dim (65)", "model.num_heads (4)"],
        ),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments: list[str], told: list[str]) -> None:
    done = recsys(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{arguments[0]}: ") and done.stderr.count("\n") == 1
    for part in (*told, "Fix: "):
        assert part in done.stderr
    assert done.stdout == ""


def test_an_unknown_job_is_refused() -> None:
    done = recsys("trian", "--config", "recipes/demo.yaml")
    assert done.returncode == 2
    assert "invalid choice: 'trian'" in done.stderr


#: Job -> what it misses in a run folder where nothing was done yet, and the command to run.
FIRST = {
    "tune": ("no prepared data", "recsys prepare"),
    "train": ("no prepared data", "recsys prepare"),
    "embed": ("no prepared data", "recsys prepare"),
    "evaluate": ("no prepared data", "recsys prepare"),
    "promote": ("no bundle here", "recsys embed"),
    "rollback": ("no champion before this one", "recsys promote"),
    "compact": ("no store of users here", "recsys serve"),
}


@pytest.mark.parametrize("job", FIRST)
def test_a_job_that_comes_too_early_names_the_one_before(
    job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_recipe_file(tmp_path)
    capsys.readouterr()
    assert status_of(job, "--config", str(config)) == 2
    problem, fix = FIRST[job]
    message = capsys.readouterr().err
    assert message.startswith(f"{job}: {tmp_path}") and message.count("\n") == 1
    assert problem in message and fix in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("job", FIRST)
def test_a_dry_run_refuses_what_the_run_would(
    job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(tiny_recipe_file(tmp_path))
    messages = []
    for more in ([], ["--dry-run"]):
        capsys.readouterr()
        assert status_of(job, "--config", config, *more) == 2
        messages.append(capsys.readouterr().err)
    assert messages[0] == messages[1]
    assert not (tmp_path / "run").exists() and not (tmp_path / "registry").exists()


@pytest.mark.parametrize("job", ["prepare", "pipeline"])
def test_a_dry_run_does_nothing(
    job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_log(tmp_path / "log")
    config = tiny_recipe_file(tmp_path)
    capsys.readouterr()
    assert status_of(job, "--config", str(config), "--dry-run") == 0
    printed = capsys.readouterr()
    assert printed.out and printed.err == ""
    assert all(line.startswith("would ") for line in printed.out.splitlines())
    assert not (tmp_path / "run").exists()


def test_the_next_command_keeps_what_was_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_log(tmp_path / "log")
    config, override = str(tiny_recipe_file(tmp_path)), "evaluate.baselines=[popularity, als]"
    with prepared_in_process():
        assert status_of("prepare", "--config", config, "--set", override) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"next: recsys tune --config {config} --set '{override}'"


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("--version") == 0
    assert capsys.readouterr().out == f"raycommend {metadata.version('raycommend')}\n"


@pytest.mark.parametrize("job", ["train", "tune", "pretrain"])
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_more_workers_than_history_shards_are_refused_at_once(
    job: str, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two people fill two buckets at most, whatever the recipe says."""
    tiny_log(tmp_path / "log", num_users=2)
    config = tiny_recipe_file(tmp_path, train={"num_workers": 3}, pretrain={"epochs": 1})
    prepare_here(load_recipe(config))
    capsys.readouterr()
    assert status_of(job, "--config", str(config), *more) == 2
    printed = capsys.readouterr()
    assert "[train.num_workers] 3 workers cannot share" in printed.err
    assert "data.num_buckets (4)" in printed.err and printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.mark.parametrize("job", ["pipeline", "promote", "rollback"])
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_another_shops_registry_is_refused_before_anything_is_done(
    job: str, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_log(tmp_path / "log")
    config = tiny_recipe_file(tmp_path)
    registry, recipe = Registry(tmp_path / "registry"), load_recipe(config)
    for seed in (1, 2):
        grocer = recipe.model_copy(update={"name": "grocer"})
        bundle = make_bundle(tmp_path / f"grocer-{seed}", grocer, seed=seed)
        registry.add(bundle.folder, bundle.version)
        registry.promote(bundle.version)
    if job == "promote":
        make_bundle(Run.open(recipe).bundle_folder, recipe, seed=3)
    capsys.readouterr()
    assert status_of(job, "--config", str(config), *more) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"{job}: {registry.root}: [name] a registry holds one product's")
    assert "recipe grocer, this one is tiny" in printed.err and printed.out == ""
    assert registry.champion() == bundle.version and len(registry.versions()) == 2
    assert not (recipe.root / PREPARED).exists()


def test_a_refusal_at_the_gate_has_its_own_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: object, **given: object) -> None:
        assert given == {"version": "b", "force": False}
        raise GateRefused("b does not beat a", fix="a stays champion")

    monkeypatch.setattr("ray_jobs.promote.execute", refuse)
    assert status_of("promote", "--config", str(tiny_recipe_file(tmp_path)), "--version", "b") == 3
    assert "a stays champion" in capsys.readouterr().err


@pytest.mark.ray
def test_an_error_inside_a_task_is_one_line_too(tmp_path: Path) -> None:
    """Ray wraps what its tasks raise, and prints it; nothing is half-written, no process stays."""
    tiny_log(tmp_path / "log")
    config = tiny_recipe_file(tmp_path)
    prepare_here(load_recipe(config))
    before = (tmp_path / "run" / PREPARED / "prepare.json").read_bytes()
    too_wide = tiny_events().with_columns(pl.lit(2**40).alias(Col.position))
    write_log(tmp_path / "log", too_wide, tiny_items())
    with tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp") as folder:
        done = recsys("prepare", "--config", str(config), RAY_TMPDIR=folder, **{KEY_ENV: KEY})
        assert done.returncode == 2, done.stderr
        deadline = time.monotonic() + 20
        while (left := _started_in(folder)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert left == []
    (message,) = done.stderr.splitlines()
    assert message.startswith(f"prepare: {tmp_path / 'log' / 'events.parquet'}: [position] a value")
    assert (tmp_path / "run" / PREPARED / "prepare.json").read_bytes() == before
    assert {path.name for path in (tmp_path / "run").iterdir()} == {PREPARED, "quarantine", KEPT}


@pytest.mark.ray
def test_a_job_ends_with_its_output_and_the_next_command(tmp_path: Path) -> None:
    tiny_log(tmp_path / "log")
    config = tiny_recipe_file(tmp_path)
    done = recsys("prepare", "--config", str(config), **{KEY_ENV: KEY})
    assert done.returncode == 0, done.stderr
    *_, output, following = done.stdout.splitlines()
    assert output.startswith("prepare: done in ")
    assert output.endswith(f" s -> {tmp_path / 'run' / PREPARED}")
    assert following == f"next: recsys tune --config {config}"
    counts = json.loads((tmp_path / "run" / PREPARED / "prepare.json").read_text())["counts"]
    assert f"{counts['events']:,} events of {counts['users']:,} users" in done.stdout


def _started_in(folder: str) -> list[int]:
    """Processes that have a file of a Ray session in this folder open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            opened = [os.readlink(number) for number in (process / "fd").iterdir()]
        except OSError:
            continue
        if any(path.startswith(f"{folder}/") for path in opened):
            found.append(int(process.name))
    return found
