from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from process_groups import leave_process_group
from tiny import Shop, tiny_shop
from torch.nn.parallel import DistributedDataParallel

from recsys.artifacts.checkpoint import load_model, load_optimizer, save
from recsys.artifacts.progress import Progress
from recsys.errors import RecipeError
from recsys.model.language import LanguageModel
from recsys.text.pretrained import load_tokenizer, locate
from recsys.text.text_store import pad_tokens
from recsys.training.pretraining import masked_language
from recsys.training.pretraining.corpus import Corpus
from recsys.training.pretraining.masked_language import Adapter, build_masked


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    settings = {"epochs": 2, "batch_size": 8, "max_tokens": 32, "held_out": 0.2}
    settings["learning_rate"] = 0.003
    return tiny_shop(tmp_path_factory.mktemp("masked"), pretrain=settings)


@pytest.fixture(autouse=True)
def _short_epoch_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_language, "HEAD_STEPS", 40)


def adapter(shop: Shop, **settings: object) -> Adapter:
    pretrain = shop.recipe.pretrain.model_copy(update=settings)
    recipe = shop.recipe.model_copy(update={"pretrain": pretrain})
    corpus = Corpus.read(recipe, shop.prepared)
    return Adapter(recipe, corpus, build_masked(recipe, corpus))


def train(mine: Adapter, *epochs: int) -> None:
    for epoch in epochs:
        mine.prepare(epoch)
        mine.train_epoch(epoch)


def perplexity(mine: Adapter) -> float:
    total, tokens = mine.held_out_loss()
    return math.exp(total / tokens)


def test_perplexity_falls(shop: Shop) -> None:
    """The number in each text cannot be predicted; that a category repeats the title can."""
    mine = adapter(shop, epochs=30, behaviour_share=0)
    untrained = perplexity(mine)
    train(mine, 0)
    before = perplexity(mine)
    train(mine, *range(1, 31))
    assert perplexity(mine) < 0.9 * before < 0.9 * untrained


def test_epoch_0_changes_the_head_alone_and_the_others_the_trained_layers_alone(shop: Shop) -> None:
    mine = adapter(shop)

    def changed(epoch: int) -> set[str]:
        before = {name: each.clone() for name, each in mine.model.state_dict().items()}
        train(mine, epoch)
        after = mine.model.state_dict()
        return {name for name in before if not torch.equal(before[name], after[name])}

    assert {name.split(".")[0] for name in changed(0)} == {"head"}
    assert {".".join(name.split(".")[:2]) for name in changed(1)} == {"language.trained_layers"}


def test_ddp_takes_the_model_without_and_with_its_body(shop: Shop, tmp_path: Path) -> None:
    """Wrapped anew once the body learns, and not the head: the weights are those without DDP."""
    alone, mine = adapter(shop), adapter(shop)
    train(alone, 0, 1)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        for epoch in (0, 1):
            mine.prepare(epoch)
            mine.train_epoch(epoch, DistributedDataParallel(mine.model))
    finally:
        leave_process_group()
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(mine.model.state_dict()[name], value, msg=name)


def test_a_resumed_run_is_the_run(shop: Shop, tmp_path: Path) -> None:
    """Texts, masks and steps after a checkpoint are those of a run that was never stopped."""
    whole = adapter(shop)
    train(whole, 0, 1)
    save(tmp_path, whole.model, None, whole.optimizer, Progress(epoch=2))
    train(whole, 2)
    resumed = adapter(shop)
    assert load_model(tmp_path, resumed.model, None).epoch == 2
    load_optimizer(tmp_path, resumed.optimizer)
    train(resumed, 2)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_the_held_out_masks_are_fixed_however_many_workers_share_them(shop: Shop) -> None:
    whole = adapter(shop)
    assert whole.held_out_loss() == whole.held_out_loss()
    parts = []
    for rank in range(2):
        corpus = Corpus.read(shop.recipe, shop.prepared, rank, 2)
        parts.append(Adapter(shop.recipe, corpus, whole.model).held_out_loss())
    total, tokens = whole.held_out_loss()
    assert sum(part[1] for part in parts) == tokens
    assert sum(part[0] for part in parts) == pytest.approx(total, rel=1e-6)


def test_the_adapted_body_is_a_language_model(shop: Shop, tmp_path: Path) -> None:
    mine = adapter(shop)
    train(mine, 0, 1)
    mine.model.language.save(tmp_path, locate(shop.recipe.model.language_model))
    loaded = LanguageModel(locate(str(tmp_path)), "frozen", 1).eval()
    tokens, mask = pad_tokens(mine.corpus.tokens)
    body = mine.model.language
    with torch.no_grad():
        found = loaded(loaded.lower(tokens, mask), mask)
        expected = body(body.lower(tokens, mask), mask)
    torch.testing.assert_close(found, expected)
    text = shop.prepared.catalogue.texts["text"][0]
    assert load_tokenizer(tmp_path, 16).encode(text).ids == mine.corpus.tokens[0].tolist()


def test_texts_without_a_word_cost_nothing(shop: Shop) -> None:
    mine = adapter(shop)
    nothing = mine._hide([np.array([2, 3], dtype=np.int32)], np.random.default_rng(0))
    loss = mine.model(*nothing)
    loss.backward()
    assert loss.item() == 0


def test_too_many_layers_are_refused(shop: Shop) -> None:
    with pytest.raises(RecipeError) as error:
        adapter(shop, last_n=3)
    assert (error.value.field, error.value.value) == ("pretrain.last_n", 3)


def test_divergence_is_told(shop: Shop) -> None:
    mine = adapter(shop)
    with torch.no_grad():
        mine.model.head.bias.fill_(float("nan"))
    with pytest.raises(RecipeError, match="diverged") as error:
        mine.train_epoch(1)
    assert error.value.field == "pretrain.learning_rate"
