from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tiny import Shop, prepare_here, tiny_events, tiny_items, tiny_recipe, tiny_shop, write_log

from ray_jobs.common.texts import ensure_store, text_vectors
from recsys.artifacts.checkpoint import save
from recsys.artifacts.progress import Progress
from recsys.artifacts.run import Run
from recsys.config import Recipe
from recsys.model.ranking_head import ScoringHead
from recsys.schema import Col
from recsys.training.build import build_two_tower
from recsys.training.optim import build_optimizer


def counted(asked: list[int]) -> Callable[..., Iterator[Any]]:
    """Encodes in this process, in two halves, and notes how many texts were asked for."""

    def run(_: Recipe, task: Any, num_texts: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
        asked.append(num_texts)
        task.load()
        half = num_texts // 2
        for low, high in ((half, num_texts), (0, half)):
            yield low, high, task.encode(low, high)

    return run


def checkpoint(shop: Shop, seed: int) -> Path:
    """One of a language model whose trained layers depend on the seed."""
    recipe = shop.recipe
    model, _ = build_two_tower(recipe, shop.prepared)
    for value in model.language.trained_layers.parameters():
        value.data += 0.01 * seed
    folder = recipe.root / f"checkpoint-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    head = ScoringHead(recipe.model.temperature)
    save(folder, model, head, build_optimizer(model, recipe.train, []), Progress())
    return folder


def changed(shop: Shop) -> Shop:
    """The same run a night later: a new first item, another text in the middle, one item less."""
    items = tiny_items()
    gone = items[Col.item][7]
    first = items[:1].with_columns(
        pl.lit("a-first").alias(Col.item), pl.lit("a brand new lamp").alias(Col.title)
    )
    items = pl.concat([first, items.filter(pl.col(Col.item) != gone)]).with_columns(
        pl.when(pl.int_range(pl.len()) == 20)
        .then(pl.lit("of another title"))
        .otherwise(Col.title)
        .alias(Col.title)
    )
    folder = shop.recipe.root.parent
    write_log(folder / "log", tiny_events().filter(pl.col(Col.item) != gone), items)
    return shop._replace(prepared=prepare_here(shop.recipe))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return tiny_shop(tmp_path)


def test_a_store_is_made_of_the_one_before_and_the_new_texts(shop: Shop, tmp_path: Path) -> None:
    before = Run.open(shop.recipe).text_store_folder
    night, asked = changed(shop), list[int]()
    run = Run.open(night.recipe)
    store = ensure_store(run, counted(asked))
    assert asked == [2]
    assert run.text_store_folder != before and not before.exists(), "it would stay for good"
    afresh = tiny_recipe(tmp_path / "afresh", data={"source": night.recipe.data.source})
    assert afresh.root != night.recipe.root
    prepare_here(afresh)
    expected = ensure_store(Run.open(afresh), counted(asked))
    assert asked[1] == expected.num_texts == store.num_texts
    assert store.offsets.tolist() == expected.offsets.tolist()
    np.testing.assert_allclose(store.vectors, expected.vectors, atol=1e-5)
    np.testing.assert_allclose(store.hidden, expected.hidden, atol=5e-3)
    assert (store.content_similarity != expected.content_similarity).nnz == 0
    assert ensure_store(run, counted(asked)).num_texts == store.num_texts
    assert len(asked) == 2, "it is there"


def test_vectors_of_known_texts_by_the_same_layers_are_kept(shop: Shop) -> None:
    one, asked = checkpoint(shop, 1), list[int]()
    first = text_vectors(Run.open(shop.recipe), one, counted(asked))
    again = text_vectors(Run.open(shop.recipe), one, counted(asked))
    assert asked == [len(first.hashes)] and again.folder == first.folder
    night = changed(shop)
    run = Run.open(night.recipe)
    ensure_store(run, counted([]))
    later = text_vectors(run, checkpoint(night, 1), counted(asked))
    assert asked[1:] == [2] and later.folder == first.folder
    run.recipe.shared.drop(later.folder)
    afresh = text_vectors(run, checkpoint(night, 1), counted(asked))
    np.testing.assert_allclose(later.vectors, afresh.vectors, atol=1e-5)


def test_other_layers_give_other_vectors_and_the_last_two_stay(shop: Shop) -> None:
    run, asked = Run.open(shop.recipe), list[int]()
    found = [text_vectors(run, checkpoint(shop, seed), counted(asked)) for seed in (1, 2, 3)]
    assert asked == [len(found[0].hashes)] * 3
    assert not np.allclose(found[0].vectors, found[1].vectors)
    assert [each.folder.exists() for each in found] == [False, True, True]
