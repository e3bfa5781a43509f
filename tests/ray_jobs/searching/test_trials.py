"""What became of trials, from the folders that Tune and Train leave."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from small_recipe import SMALL
from tiny import tiny_recipe

from ray_jobs import tune
from ray_jobs.common import trial as one_trial
from ray_jobs.common.kept import Checkpoints, run_folder
from ray_jobs.searching.trials import trial_table
from recsys.artifacts import checkpoint
from recsys.artifacts.progress import PROGRESS, Progress, seal
from recsys.artifacts.run import Run
from recsys.config import recipe_from_dict
from recsys.errors import RecipeError
from recsys.evaluation.report import METRIC
from recsys.storage.shared import SharedFolder

DIVERGED = RecipeError(
    "training has diverged: the loss of step 2 is nan", field="train.learning_rate", fix="x"
)
RECIPE = recipe_from_dict(SMALL)
SETTINGS = {"train.learning_rate": 0.01, "train.batch_size": 16}


class TestTable:
    """Folders as Tune and Train write them: a trial's own, and beside it its training run's."""

    def result(
        self, folder: Path, name: str, *kept: list[float], error: object = None, told: float = 0.0
    ) -> Any:
        """What Tune gives of a trial whose checkpoints hold these curves, oldest first.

        `told` is what it remembers since the search went on.
        """
        (folder / f"trial-{name}").mkdir(parents=True)
        for number, curve in enumerate(kept):
            points = [{"epoch": n + 1, METRIC: value} for n, value in enumerate(curve)]
            checkpoint = (
                run_folder(folder, name, SETTINGS) / f"checkpoint_2026-01-01_00-00-0{number}"
            )
            checkpoint.mkdir(parents=True)
            seal(checkpoint, Progress(len(points), 10 * len(points), points))
        run_folder(folder, name, SETTINGS).mkdir(exist_ok=True)
        return SimpleNamespace(
            path=str(folder / f"trial-{name}"), error=error,
            config=SETTINGS,
            metrics={
                METRIC: told, "epoch": 3, "checkpoint_path": f"{folder}/gone",
            },
            metrics_dataframe=pl.DataFrame({METRIC: [told]}).to_pandas(),
        )  # fmt: skip

    def test_a_trial_that_went_on_is_judged_by_all_its_epochs(self, tmp_path: Path) -> None:
        """Its best epoch lies before the interruption, its last one after."""
        best, last = [0.3151, 0.3200], [0.3151, 0.3200, 0.3140]
        rows = trial_table(
            RECIPE,
            [
                self.result(tmp_path, "a", best, last, told=0.3140),
                self.result(tmp_path, "b", [0.3180], told=0.3180),
            ],
            tmp_path,
        )
        assert [(row["trial"], row[METRIC], row["epochs"]) for row in rows] == [
            ("trial-a", 0.3200, 3), ("trial-b", 0.3180, 1),
        ]  # fmt: skip
        checkpoint, metrics = Checkpoints(Path(rows[0]["path"]), SharedFolder(tmp_path)).best(
            METRIC
        )
        assert metrics[METRIC] == 0.3200
        assert checkpoint.name.endswith("00")

    def test_a_trial_that_had_finished_when_it_was_interrupted(self, tmp_path: Path) -> None:
        """It has nothing more to tell Tune."""
        finished = self.result(tmp_path, "a", [0.1, 0.2])
        finished.metrics, finished.metrics_dataframe = {}, None
        (row,) = trial_table(RECIPE, [finished], tmp_path)
        assert (row[METRIC], row["epochs"]) == (0.2, 2)
        assert row["path"] == str(run_folder(tmp_path, "a", SETTINGS))

    def test_a_trial_that_has_all_its_epochs_tells_them_and_starts_no_worker(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from ray import tune as ray_tune

        recipe, told = tiny_recipe(tmp_path, train={"epochs": 2}), []
        self.result(tmp_path, "1_00000", [0.1, 0.2])
        monkeypatch.setattr(
            ray_tune, "get_context", lambda: SimpleNamespace(get_trial_id=lambda: "2_00000")
        )
        monkeypatch.setattr(ray_tune, "report", told.append)
        monkeypatch.setattr(one_trial, "the_board", None)
        one_trial.trial(
            SETTINGS, recipe=recipe.resolved(),
            search=str(tmp_path),
        )  # fmt: skip
        assert [(point["epoch"], point[METRIC]) for point in told] == [(2, 0.2)]

    def test_a_trial_without_an_epoch_comes_last(self, tmp_path: Path) -> None:
        failed = self.result(tmp_path, "a", error=DIVERGED)
        for number, name in enumerate((checkpoint.MODEL, PROGRESS)):
            half = run_folder(tmp_path, "a", SETTINGS) / f"checkpoint_2026-01-01_00-00-0{number}"
            half.mkdir()  # a worker was killed while it wrote
            (half / checkpoint.MODEL).write_bytes(b"weights")
            seal(half, Progress(1, 1, [{"epoch": 1, METRIC: 0.9}]))
            (half / name).unlink()
        rows = trial_table(RECIPE, [failed, self.result(tmp_path, "b", [0.1])], tmp_path)
        assert [(row["trial"], row[METRIC], row["path"] is None) for row in rows] == [
            ("trial-b", 0.1, False), ("trial-a", None, True),
        ]  # fmt: skip
        assert rows[1]["reason"] == DIVERGED.problem

    def test_what_is_not_a_number_comes_last(self, tmp_path: Path) -> None:
        rows = trial_table(
            RECIPE,
            [
                self.result(tmp_path, "a", [math.nan]),
                self.result(tmp_path, "b", [0.1], [0.1, math.nan]),
            ],
            tmp_path,
        )
        assert [(row["trial"], row[METRIC]) for row in rows] == [
            ("trial-b", 0.1),
            ("trial-a", None),
        ]
        _, metrics = Checkpoints(Path(rows[0]["path"]), SharedFolder(tmp_path)).best(METRIC)
        assert metrics["epoch"] == 1

    def test_a_trial_that_failed_after_an_epoch_has_both(self, tmp_path: Path) -> None:
        recipe = tiny_recipe(tmp_path)
        recipe.root.mkdir()
        rows = trial_table(RECIPE, [self.result(tmp_path, "a", [0.1], error=DIVERGED)], tmp_path)
        Run.open(recipe).winner_file.write_text(json.dumps({"trials": rows}))
        line = tune.report(Run.open(recipe))[1]
        assert f"0.1000  <- winner  ({DIVERGED.problem})" in line
