"""What lies in the folder of a training run, whole or torn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ray_jobs.common import kept
from recsys.artifacts.checkpoint import MODEL, PROGRESS, Progress, seal
from recsys.errors import DataError


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
    path, metrics = kept.best_checkpoint(tmp_path, "ndcg@10")
    assert (path, metrics["ndcg@10"]) == (best, 0.3)
    assert kept.latest_checkpoint(tmp_path) == latest
    assert [point["ndcg@10"] for point in kept.curve_of(tmp_path)] == [0.3, 0.1, 0.2]


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert kept.curve_of(tmp_path / "nowhere") == []
    for wanted in (
        lambda: kept.latest_checkpoint(tmp_path),
        lambda: kept.best_checkpoint(tmp_path, "ndcg@10"),
    ):
        with pytest.raises(DataError, match="left no checkpoint"):
            wanted()


class TestTorn:
    @pytest.mark.parametrize("notes", ["", '{"checkpoint_results": [{"check'])
    def test_torn_notes_and_torn_checkpoints_go(self, tmp_path: Path, notes: str) -> None:
        whole = checkpoint(tmp_path, 1, values=[0.3])
        checkpoint(tmp_path, 2, values=[0.3, 0.4], missing=PROGRESS)
        checkpoint(tmp_path, 3, values=[0.3, 0.4], missing=MODEL)
        (tmp_path / kept.SNAPSHOT).write_text(notes)
        kept.drop_torn(tmp_path)
        assert list(tmp_path.iterdir()) == [whole]

    def test_what_the_notes_name_stays_for_the_error_that_names_it(self, tmp_path: Path) -> None:
        damaged = checkpoint(tmp_path, 1, values=[0.3], missing=MODEL)
        notes = tmp_path / kept.SNAPSHOT
        notes.write_text(json.dumps({"checkpoint_results": [damaged.name]}))
        kept.drop_torn(tmp_path)
        assert damaged.is_dir() and notes.is_file()

    def test_of_a_run_that_is_new_there_is_nothing(self, tmp_path: Path) -> None:
        kept.drop_torn(tmp_path / "new")


def test_a_search_that_begins_anew_finds_its_trials_runs(tmp_path: Path) -> None:
    """Ids begin with another prefix, numbers are the same."""
    assert kept.run_folder(tmp_path, "aaaaa_00001").name == "train-aaaaa_00001"
    run = tmp_path / "train-aaaaa_00001"
    checkpoint(run, 1, values=[0.3])
    (tmp_path / "trial-aaaaa_00001").mkdir()
    for name in ("tuner.pkl", "experiment_state-1.json"):
        (tmp_path / name).write_text("")
    kept.forget(tmp_path)
    assert list(tmp_path.iterdir()) == [run]
    assert kept.run_folder(tmp_path, "bbbbb_00001") == run
    assert kept.run_folder(tmp_path, "bbbbb_00000").name == "train-bbbbb_00000"
    kept.forget(tmp_path / "nowhere")
