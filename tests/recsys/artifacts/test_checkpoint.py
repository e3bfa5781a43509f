from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import Shop

from recsys.artifacts import checkpoint
from recsys.artifacts.checkpoint import trained_state
from recsys.artifacts.progress import PROGRESS, Progress, is_whole
from recsys.errors import DataError
from recsys.training.build import build_two_tower
from recsys.training.worker import Worker


def worker(shop: Shop, **train: object) -> Worker:
    recipe = shop.recipe.model_copy(update={"train": shop.recipe.train.model_copy(update=train)})
    model, item_rows = build_two_tower(recipe, shop.prepared)
    return Worker(recipe, shop.prepared, shop.store, model, item_rows)


def steps(mine: Worker, shop: Shop, count: int) -> list[float]:
    users = shop.prepared.users(shop.prepared.shards[:1])
    losses = []
    for _ in range(count):
        batch = mine.batch(users)
        assert batch is not None
        losses.append(mine.train_step(batch, 20))
    return losses


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_goes_on_as_if_it_had_not_stopped(
    shop: Shop, tmp_path: Path, optimizer: str
) -> None:
    # Every text fresh: the cache of text vectors is not kept.
    settings = {"optimizer": optimizer, "fresh_texts_per_step": None}
    straight = worker(shop, **settings)
    steps(straight, shop, 3)
    progress = Progress(epoch=1, step=straight.step, curve=[{"ndcg@10": 0.1}])
    checkpoint.save(tmp_path, straight.model, straight.head, straight.optimizer, progress)

    resumed = worker(shop, **settings)
    found = checkpoint.load_model(tmp_path, resumed.model, resumed.head)
    checkpoint.load_optimizer(tmp_path, resumed.optimizer)
    assert found == progress
    assert [point["ndcg@10"] for point in found.curve] == [0.1]
    resumed.step = found.step
    torch.manual_seed(5)
    expected = steps(straight, shop, 2)
    torch.manual_seed(5)
    assert steps(resumed, shop, 2) == pytest.approx(expected, rel=1e-5)
    for name, value in straight.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, msg=name)


def test_an_optimiser_that_has_not_stepped_yet(shop: Shop, tmp_path: Path) -> None:
    fresh = worker(shop)
    checkpoint.save(tmp_path, fresh.model, fresh.head, fresh.optimizer, Progress())
    other = worker(shop)
    checkpoint.load_optimizer(tmp_path, other.optimizer)
    assert len(steps(other, shop, 1)) == 1


def test_only_what_training_changes_is_kept(shop: Shop) -> None:
    model = worker(shop).model
    kept = trained_state(model)
    assert set(kept) >= {name for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen and not frozen & set(kept)


def test_a_checkpoint_of_another_recipe_is_refused(shop: Shop, tmp_path: Path) -> None:
    mine = worker(shop)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    checkpoint.save(folder, mine.model, mine.head, mine.optimizer, Progress())
    for model in ({"dim": 24}, {"num_layers": 2}, {"tuning": "frozen"}):
        recipe = shop.recipe.model_copy(
            update={"model": shop.recipe.model.model_copy(update=model)}
        )
        model, _ = build_two_tower(recipe, shop.prepared)
        with pytest.raises(DataError, match="does not fit the recipe") as error:
            checkpoint.load_model(folder, model, mine.head)
        assert str(error.value.where).endswith(checkpoint.MODEL)
        assert error.value.field


def test_what_was_killed_while_it_wrote_is_not_whole(shop: Shop, tmp_path: Path) -> None:
    mine = worker(shop)
    assert not is_whole(tmp_path), "nothing is written yet"
    checkpoint.save(tmp_path, mine.model, mine.head, mine.optimizer, Progress(1, 1))
    assert is_whole(tmp_path)
    for name in (checkpoint.MODEL, checkpoint.HEAD, PROGRESS):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        assert not is_whole(tmp_path)
        (tmp_path / name).unlink()
        assert not is_whole(tmp_path)
        (tmp_path / name).write_bytes(content)
    assert is_whole(tmp_path)


def test_no_file_is_a_pickle(shop: Shop, tmp_path: Path) -> None:
    mine = worker(shop)
    steps(mine, shop, 1)
    checkpoint.save(tmp_path, mine.model, mine.head, mine.optimizer, Progress(1, 1))
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    assert json.loads((tmp_path / PROGRESS).read_text())["step"] == 1
