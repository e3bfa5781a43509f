from __future__ import annotations

import json
from pathlib import Path

import pytest
from chaos import killing_one_worker
from tiny import prepare_here, tiny_log, tiny_recipe

from ray_jobs import pipeline, pretrain, train
from ray_jobs.cluster import connected
from ray_jobs.texts import store_folder
from recsys.adapted import PRETRAIN_FILE, adapted
from recsys.errors import RecipeError

EPOCHS = 8
SETTINGS = {"epochs": EPOCHS, "batch_size": 1, "max_tokens": 32, "held_out": 0.2}


@pytest.mark.ray
@pytest.mark.chaos
def test_a_killed_worker_does_not_lose_the_adaptation(tmp_path: Path) -> None:
    """It goes on from the last epoch; what follows takes the language model that came out."""
    tiny_log(tmp_path / "log")
    workers = {"num_workers": 2}
    recipe = tiny_recipe(tmp_path, pretrain=SETTINGS, train=workers, ray={"num_cpus": 2})
    prepared = prepare_here(recipe)
    with connected(recipe.ray), killing_one_worker(recipe.root / train.RAY_DIR) as killed:
        folder = pretrain.run(recipe)
    assert len(killed) == 1, "the run was over before a worker could be killed"
    said = json.loads((recipe.root / PRETRAIN_FILE).read_text())
    assert [point["epoch"] for point in said["curve"]] == list(range(EPOCHS + 1))
    assert said["perplexity_before"] == said["curve"][0]["perplexity"]
    assert said["perplexity_after"] == said["curve"][-1]["perplexity"]
    meant = adapted(recipe, prepared)
    assert meant.model.language_model == str(folder)
    assert said["adapted"] in store_folder(meant, prepared).name
    assert said["adapted"] != prepared.summary["language_model"]


def test_a_recipe_that_asks_for_none_is_refused(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    for job in (pretrain.plan, pretrain.run):
        with pytest.raises(RecipeError, match="no adaptation") as error:
            job(recipe)
        assert error.value.field == "pretrain.epochs"


def test_it_is_a_station_of_the_pipeline_where_it_is_asked_for(tmp_path: Path) -> None:
    tiny_log(tmp_path / "log")
    told = {
        epochs: "\n".join(pipeline.plan(tiny_recipe(tmp_path, pretrain={"epochs": epochs})))
        for epochs in (0, 2)
    }
    assert "adapt the last 2 layers" in told[2]
    assert "adapt" not in told[0]
