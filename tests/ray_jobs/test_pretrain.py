"""The job without a cluster; `test_way.py` runs it as a stage of the pipeline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import ray.train
import ray.train.torch
import torch
from tiny import prepare_here, tiny_log, tiny_recipe

from ray_jobs import pipeline, pretrain
from ray_jobs.common.kept import Checkpoints
from recsys.artifacts.run import Run
from recsys.config import Recipe
from recsys.errors import RecipeError
from recsys.preparation.prepared import Prepared
from recsys.storage.shared import SharedFolder
from recsys.text.pretrained import WEIGHTS
from recsys.training.pretraining import masked_language
from recsys.training.pretraining.adapted import PRETRAIN_FILE, adapted

SETTINGS = {"epochs": 2, "batch_size": 8, "max_tokens": 32, "held_out": 0.2}


KEEP = Checkpoints.keep


class Killed(Exception):
    """Stands for the end of a worker."""


class OneWorker:
    """Ray Train as its only worker sees it; the worker may be killed after some checkpoints."""

    def __init__(self, folder: Path, killed_after: int | None = None) -> None:
        self.folder, self.left = folder, killed_after

    def get_world_rank(self) -> int:
        return 0

    def get_world_size(self) -> int:
        return 1

    def keep(self, checkpoints: Checkpoints, *told: Any) -> None:
        KEEP(checkpoints, *told)
        if self.left is not None:
            self.left -= 1
            if not self.left:
                raise Killed

    @contextmanager
    def patched(self) -> Iterator[None]:
        with (
            patch.object(ray.train, "get_context", lambda: self),
            patch.object(ray.train.torch, "get_device", lambda: torch.device("cpu")),
            patch.object(Checkpoints, "keep", lambda *told: self.keep(*told)),
            patch.object(pretrain, "noticed", lambda *_: nullcontext()),
        ):
            yield


@pytest.fixture(autouse=True)
def _short_epoch_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_language, "HEAD_STEPS", 8)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("pretrain")
    tiny_log(folder / "log")
    recipe = tiny_recipe(folder, pretrain=SETTINGS)
    prepare_here(recipe)
    return recipe


def run(recipe: Recipe, worker: OneWorker) -> bytes:
    """What comes out, once the worker has ended well; the weights of the adapted model."""
    prepared = Prepared.of(recipe)
    config = {"recipe": recipe.resolved(), "prepared": str(prepared.folder)}
    config |= {"run": str(worker.folder)}
    with worker.patched():
        pretrain.adapt_loop(config)
    pretrain.write_adapted(
        Run.open(recipe), Checkpoints(worker.folder, SharedFolder(worker.folder)).latest()
    )
    return (Path(adapted(recipe, prepared).model.language_model) / WEIGHTS).read_bytes()


@pytest.mark.parametrize("killed_after", [1, 2])
def test_a_run_that_is_resumed_ends_as_one_that_was_not_disturbed(
    recipe: Recipe, tmp_path: Path, killed_after: int
) -> None:
    whole = run(recipe, OneWorker(tmp_path / "whole"))
    with pytest.raises(Killed):
        run(recipe, OneWorker(tmp_path / "parts", killed_after))
    assert run(recipe, OneWorker(tmp_path / "parts")) == whole
    said = json.loads((recipe.root / PRETRAIN_FILE).read_text())
    assert [point["epoch"] for point in said["curve"]] == [0, 1, 2]
    assert said["perplexity_before"] == said["curve"][0]["perplexity"]
    assert said["perplexity_after"] == said["curve"][2]["perplexity"]


def test_a_finished_run_is_not_trained_again(recipe: Recipe, tmp_path: Path) -> None:
    run(recipe, OneWorker(tmp_path))
    before = (recipe.root / PRETRAIN_FILE).read_bytes()
    run(recipe, OneWorker(tmp_path))
    assert (recipe.root / PRETRAIN_FILE).read_bytes() == before


def test_a_recipe_that_asks_for_none_is_refused(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    for job in (pretrain.plan, pretrain.execute):
        with pytest.raises(RecipeError, match="no adaptation") as error:
            job(Run.open(recipe))
        assert error.value.field == "pretrain.epochs"


def test_it_is_a_station_of_the_pipeline_where_it_is_asked_for(tmp_path: Path) -> None:
    tiny_log(tmp_path / "log")
    told = {
        epochs: "\n".join(
            pipeline.plan(Run.open(tiny_recipe(tmp_path, pretrain={"epochs": epochs})))
        )
        for epochs in (0, 2)
    }
    assert "adapt the last 2 layers" in told[2]
    assert "adapt" not in told[0]
