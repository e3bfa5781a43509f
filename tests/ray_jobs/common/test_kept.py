"""What lies in the folder of a training run, whole or torn."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest

from ray_jobs.common import kept
from recsys.artifacts.checkpoint import MODEL
from recsys.artifacts.progress import PROGRESS, Progress, load_progress, seal
from recsys.errors import DataError
from recsys.storage.shared import SharedFolder


def of(run: Path) -> kept.Checkpoints:
    return kept.Checkpoints(run, SharedFolder(run.parent))


def checkpoint(run: Path, epoch: int, *, values: list[float], missing: str | None = None) -> Path:
    """A checkpoint after some epochs; one file of it may not have been written."""
    folder = run / f"checkpoint_2026-01-01_00-00-0{epoch}"
    folder.mkdir(parents=True)
    (folder / MODEL).write_bytes(b"weights")
    curve = [{"epoch": n + 1, "ndcg@10": value} for n, value in enumerate(values)]
    seal(folder, Progress(epoch, 10 * epoch, curve))
    if missing:
        (folder / missing).unlink()
    return folder


def test_the_best_the_latest_and_the_whole_curve(tmp_path: Path) -> None:
    best = checkpoint(tmp_path, 1, values=[0.3])
    latest = checkpoint(tmp_path, 3, values=[0.3, 0.1, 0.2])
    checkpoint(tmp_path, 4, values=[0.3, 0.1, 0.2, 0.9], missing=MODEL)
    path, metrics = of(tmp_path).best("ndcg@10")
    assert (path, metrics["ndcg@10"]) == (best, 0.3)
    assert of(tmp_path).latest() == latest
    assert [point["ndcg@10"] for point in of(tmp_path).curve()] == [0.3, 0.1, 0.2]


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert of(tmp_path / "nowhere").curve() == []
    for wanted in (
        lambda: of(tmp_path).latest(),
        lambda: of(tmp_path).best("ndcg@10"),
    ):
        with pytest.raises(DataError, match="left no checkpoint"):
            wanted()


class TestKeeping:
    """The latest two stay, and the best: one of them is whole where the others are damaged."""

    def keep(self, run: Path, values: list[float], *, within: int | None = None) -> None:
        curve = [{"epoch": n + 1, "ndcg@10": value} for n, value in enumerate(values)]
        progress = Progress(len(values), 10 * len(values), curve)
        if within is not None:
            progress.step, progress.left = within, [[(3, 9)], []]
        of(run).keep(progress, partial(seal, progress=progress), "ndcg@10")

    def test_the_latest_and_the_best_stay(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        for values in ([0.3], [0.3, 0.2], [0.3, 0.2, 0.1], [0.3, 0.2, 0.1, math.nan]):
            self.keep(run, values)
        names = sorted(path.name for path in run.iterdir())
        assert names == ["checkpoint_0001", "checkpoint_0003", "checkpoint_0004"]
        assert of(run).best("ndcg@10")[0].name == "checkpoint_0001"

    def test_one_within_an_epoch_is_gone_on_from_and_is_not_the_best(self, tmp_path: Path) -> None:
        self.keep(tmp_path, [0.3])
        self.keep(tmp_path, [0.3], within=14)
        last = of(tmp_path).last()
        assert last == tmp_path / "checkpoint_0001-000000014"
        found = load_progress(last)
        assert (found.epoch, found.step, found.left) == (1, 14, [[(3, 9)], []])
        assert of(tmp_path).best("ndcg@10")[0] == tmp_path / "checkpoint_0001"
        self.keep(tmp_path, [0.3, 0.4])
        assert of(tmp_path).last() == tmp_path / "checkpoint_0002"

    def test_where_the_last_one_is_damaged_the_one_before_is_taken(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.keep(tmp_path, [0.3])
        self.keep(tmp_path, [0.3, 0.4])
        (tmp_path / "checkpoint_0002" / PROGRESS).write_text("{")
        assert of(tmp_path).last() == tmp_path / "checkpoint_0001"
        of(tmp_path).tell_damaged()
        assert capsys.readouterr().out == (
            f"    {tmp_path}/checkpoint_0002 is damaged: the training goes on from "
            "checkpoint_0001\n"
        )
        self.keep(tmp_path, [0.3, 0.4])
        assert of(tmp_path).last() == tmp_path / "checkpoint_0002"
        of(tmp_path).tell_damaged()
        assert not capsys.readouterr().out

    def test_what_is_half_written_is_no_checkpoint_and_is_swept_away(self, tmp_path: Path) -> None:
        def dies(folder: Path) -> None:
            (folder / MODEL).write_bytes(b"half")
            half = folder.with_name(".checkpoint_0007.elsewhere-1.part")
            half.mkdir()
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            of(tmp_path).keep(Progress(7, 70), dies)
        assert of(tmp_path).last() is None
        of(tmp_path).sweep()
        assert list(tmp_path.iterdir()) == []
        of(tmp_path / "nowhere").sweep()


def test_a_search_that_begins_anew_finds_its_trials_runs(tmp_path: Path) -> None:
    """Ids begin with another prefix, numbers are the same; other settings are another trial."""
    settings = {"train.learning_rate": 0.1}
    run = kept.run_folder(tmp_path, "aaaaa_00001", settings)
    checkpoint(run, 1, values=[0.3])
    (tmp_path / "trial-aaaaa_00001").mkdir()
    for name in ("tuner.pkl", "experiment_state-1.json"):
        (tmp_path / name).write_text("")
    kept.forget(tmp_path)
    assert list(tmp_path.iterdir()) == [run]
    assert kept.run_folder(tmp_path, "bbbbb_00001", settings) == run
    others = [("bbbbb_00000", settings), ("bbbbb_00001", {"train.learning_rate": 0.2})]
    assert run not in [kept.run_folder(tmp_path, *other) for other in others]
    kept.forget(tmp_path / "nowhere")
