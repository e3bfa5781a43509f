"""What only a GPU shows; all of it is skipped without one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import prepare_here, store_here, tiny_log, tiny_recipe

from ray_jobs import embed, prepare, pretrain, train
from ray_jobs.common.cluster import connected
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.run import Run
from recsys.config import Recipe
from recsys.preparation.prepared import Prepared
from recsys.text.text_store import TextStore
from recsys.training.build import build_two_tower
from recsys.training.worker import Worker

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]


def losses(recipe: Recipe, prepared: Prepared, store: TextStore, device: str) -> list[float]:
    model, item_rows = build_two_tower(recipe, prepared)
    model.items.start_from(store.vectors)
    place = torch.device(device)
    worker = Worker(recipe, prepared, store, model.to(place), item_rows, device=place)
    batch = worker.batch(prepared.users())
    assert batch is not None
    return [worker.train_step(batch, 100) for _ in range(10)]


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 2e-2)])
def test_a_gpu_learns_what_a_cpu_learns(tmp_path: Path, precision: str, tolerance: float) -> None:
    def recipe(precision: str) -> Recipe:
        model = {"tuning": "full", "dropout": 0, "id_dropout": 0}
        train = {"fresh_texts_per_step": None, "precision": precision}
        return tiny_recipe(tmp_path, model=model, train=train)

    tiny_log(tmp_path / "log")
    prepared = prepare_here(recipe("float32"))
    store = store_here(recipe("float32"))
    expected = losses(recipe("float32"), prepared, store, "cpu")
    assert expected[-1] < expected[0]
    assert losses(recipe(precision), prepared, store, "cuda") == pytest.approx(
        expected, rel=tolerance
    )


@pytest.mark.ray
def test_the_jobs_run_on_a_gpu(tmp_path: Path) -> None:
    """Texts, adaptation, training and the bundle, by Ray's workers, NCCL between them."""
    tiny_log(tmp_path / "log")
    recipe = tiny_recipe(
        tmp_path,
        pretrain={"epochs": 1, "last_n": 1, "max_tokens": 48},
        train={"num_workers": 1, "use_gpu": True, "precision": "bfloat16", "epochs": 2},
        ray={"num_cpus": 4},
    )
    with connected(recipe.ray, dashboard=True):
        prepare.execute(Run.open(recipe))
        pretrain.execute(Run.open(recipe))
        train.execute(Run.open(recipe))
        bundle = embed.execute(Run.open(recipe))
    assert Bundle.open(bundle).num_items
