"""A run on a disk that fills: one line, and the same command goes on once there is room."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_disk import fill, mounted
from tiny import KEY, KEY_ENV, tiny_log, tiny_recipe_file, trainable_here

from ray_jobs import cli
from recsys.artifacts.progress import is_whole, whole_ones
from recsys.artifacts.registry import Registry
from recsys.artifacts.run import Run
from recsys.config import Recipe, load_recipe
from recsys.data.feedback import Feedback, count_rows, finished
from recsys.errors import NoSpaceError
from recsys.evaluation.report import METRIC
from recsys.state import STATE_FILE, StateEvent, open_state, state_of

EPOCHS = 5


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(KEY_ENV, KEY)
    with mounted(tmp_path / "disk", megabytes=32) as folder:
        yield folder


@pytest.fixture
def config(tmp_path: Path, disk: Path) -> Path:
    """The log lies elsewhere, all that is written on the small disk."""
    tiny_log(tmp_path / "log")
    return tiny_recipe_file(
        tmp_path, run_dir=str(disk / "run"), promote={"registry": str(disk / "registry")},
        train={"epochs": EPOCHS, "patience": EPOCHS},
        tune={"num_trials": 2, "grace_epochs": EPOCHS, "max_concurrent": 1},
    )  # fmt: skip


class Commands:
    """Jobs on a disk that is filled for them, and emptied again."""

    def __init__(self, config: Path, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config, self.disk, self.capsys = config, disk, capsys

    def status(self, job: str) -> int:
        with pytest.raises(SystemExit) as end:
            cli.main([job, "--config", str(self.config)])
        return int(end.value.code or 0)

    def refused(self, job: str, *, leave: int = 0) -> str:
        """What a job that finds no room says on standard output; the error is one line."""
        other = fill(self.disk, leave=leave)
        self.capsys.readouterr()
        assert self.status(job) == 2
        printed = self.capsys.readouterr()
        line = f"{job}: {NoSpaceError.on(None, [self.disk / 'run'])}"
        assert _errors(printed.err) in ([line], [line.replace("/run:", "/registry:")])
        other.unlink()
        return printed.out

    def done(self, job: str) -> str:
        """What a job says that goes on."""
        assert self.status(job) == 0
        return self.capsys.readouterr().out


@pytest.fixture
def commands(config: Path, disk: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(config, disk, capsys)


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_each_job_of_the_way_goes_on_once_there_is_room(commands: Commands, config: Path) -> None:
    """Where the disk fills while trials are trained, what Tune remembers of the search is torn."""
    recipe = load_recipe(config)
    for job, leave in (("prepare", 100_000), ("tune", 0), ("embed", 0), ("evaluate", 0)):
        commands.refused(job, leave=leave)
        assert not [path for path in recipe.root.glob(".*") if path.name.endswith(".part")]
        if job == "tune":
            _filled_while_it_trains(job, commands, recipe)
        else:
            commands.done(job)
    commands.refused("promote")
    commands.done("promote")
    assert len(Registry.of(recipe).history()) == 1


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_training_goes_on_from_the_epochs_that_had_room(commands: Commands, config: Path) -> None:
    recipe = load_recipe(config)
    trainable_here(recipe)
    _filled_while_it_trains("train", commands, recipe)


def _filled_while_it_trains(job: str, commands: Commands, recipe: Recipe) -> None:
    """The job ends in one line once the disk is full; with room again it trains what is left."""
    runs, stop = Run.open(recipe).trainings, threading.Event()
    filler = threading.Thread(target=_fill_after_an_epoch, args=(commands.disk, runs, stop))
    filler.start()
    try:
        assert commands.status(job) == 2
    finally:
        stop.set()
        filler.join()
    told = commands.capsys.readouterr()
    assert _errors(told.err) == [f"{job}: {NoSpaceError.on(None, [recipe.root])}"]
    (first,) = {path.parent for path in runs.rglob("checkpoint_*")}
    had_room = whole_ones(first)[-1][1].epoch
    assert 1 <= had_room < EPOCHS
    (commands.disk / "other").unlink()
    said = commands.done(job)
    for epoch in range(1, EPOCHS + 1):
        trials = recipe.tune.num_trials if job == "tune" else 1
        expected = trials if epoch > had_room else trials - 1
        assert said.count(f"epoch {epoch}/{EPOCHS}") == expected
    winner = json.loads(Run.open(recipe).winner_file.read_text())
    trained = whole_ones((recipe.root / winner["checkpoint"]).parent)
    assert winner["metrics"][METRIC] == max(point[METRIC] for point in trained[-1][1].curve)


def _errors(printed: str) -> list[str]:
    """Lines of standard error that are not Ray Data's progress bar, which a slow disk shows."""
    return [
        line
        for line in printed.splitlines()
        if line.strip() and not line.startswith("Parquet dataset sampling")
    ]


def _fill_after_an_epoch(disk: Path, runs: Path, stop: threading.Event) -> None:
    while not stop.wait(0.02):
        if any(is_whole(path.parent) for path in runs.rglob("checkpoint_*/progress.json")):
            fill(disk)
            return


def test_compact_loses_nothing(commands: Commands, config: Path) -> None:
    recipe = load_recipe(config)
    recipe.root.mkdir()
    store = open_state(state_of(recipe), recipe.root / STATE_FILE)
    rows = [
        StateEvent(f"{n:032x}", f"e{n}", "item-0001", 1, 1_700_000_000_000_000) for n in range(999)
    ]
    assert store.append(rows) == ["new"] * 999
    store.close()
    commands.refused("compact")
    commands.refused("compact", leave=40_000)
    commands.done("compact")
    assert count_rows(finished(Feedback.of(recipe.root).events)) == 999
