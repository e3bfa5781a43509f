from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from bundles import make_language_model
from safetensors.torch import load_file, save_file
from tiny import (
    Shop,
    day,
    prepare_here,
    store_here,
    tiny_events,
    tiny_items,
    tiny_recipe,
    tiny_shop,
    write_log,
)
from workers import chunks, make_worker

from ray_jobs.common.texts import text_vectors
from ray_jobs.embed import assemble
from recsys.arrays import Float32s
from recsys.artifacts.bundle import BUNDLE, ID_ROW, ITEMS, Bundle
from recsys.artifacts.checkpoint import save
from recsys.artifacts.progress import Progress
from recsys.artifacts.registry import CHAMPION, Registry
from recsys.artifacts.run import Run
from recsys.artifacts.warm_start import load_start, start_bundle, warm_recipe
from recsys.config import Recipe, recipe_from_dict, target_codes
from recsys.errors import BundleError, DataError, RecipeError
from recsys.features.item_fields import ItemFields
from recsys.model.item_encoder import NO_ID
from recsys.model.ranking_head import ScoringHead
from recsys.model.two_tower import TwoTower
from recsys.schema import Col
from recsys.storage.outputs import write_json
from recsys.storage.seals import file_sha256, sealed
from recsys.text.pretrained import WEIGHTS
from recsys.training.build import build_two_tower
from recsys.training.worker import Worker

MODEL = {"dim": 16, "num_heads": 2, "min_events_for_id": 1}


class Trained(NamedTuple):
    """A shop, its bundle, the worker that trained it, and the vectors of the texts."""

    shop: Shop
    bundle: Bundle
    worker: Worker
    vectors: Float32s


def trained(folder: Path, **model: Any) -> Trained:
    """Train an epoch on the small shop and write the bundle, all in this process."""
    shop = tiny_shop(folder, model={**MODEL, **model})
    worker, prepared = make_worker(shop), shop.prepared
    worker.train_epoch(chunks(prepared.users(), 8), 10)
    worker.fit_head(worker.head_examples(questions(shop, "head")))
    checkpoint = shop.recipe.root / "checkpoint"
    checkpoint.mkdir()
    save(checkpoint, worker.model, worker.head, worker.optimizer, Progress(epoch=1))
    run = Run.open(shop.recipe)
    vectors = text_vectors(run, checkpoint, here).vectors
    bundle = assemble(run.bundle_folder, shop.recipe, prepared, checkpoint, vectors, shop.store)
    worker.cache.expire(worker.step)
    return Trained(shop, bundle, worker, vectors)


def here(_: Recipe, task: Any, num_texts: int) -> Any:
    task.load()
    yield 0, num_texts, task.encode(0, num_texts)


def questions(shop: Shop, window: str) -> Any:
    return shop.prepared.questions(window, target_codes(shop.recipe))[1]


def started(bundle: Bundle, shop: Shop) -> tuple[TwoTower, ScoringHead, np.ndarray]:
    """A model with the bundle's weights, its head, and the rows of the shop's items."""
    model, item_rows = build_two_tower(shop.recipe, shop.prepared)
    head = ScoringHead(shop.recipe.model.temperature)
    load_start(bundle, model, head, item_rows, shop.prepared.catalogue.items)
    return model, head, item_rows.numpy()


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("before"))


@pytest.fixture(scope="module")
def changed(before: Trained, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The shop with a first item, which moves all rows, without another, and with a new brand."""
    folder = tmp_path_factory.mktemp("changed")
    items, events = tiny_items(), tiny_events()
    gone = items[Col.item][7]
    first = items[:1].with_columns(
        pl.lit("a-first").alias(Col.item), pl.lit("a new lamp").alias(Col.title)
    )
    of_first = events[:20].with_columns(pl.lit("a-first").alias(Col.item))
    items = pl.concat([first, items.filter(pl.col(Col.item) != gone)]).with_columns(
        pl.when(pl.int_range(pl.len()) % 8 == 1)
        .then(pl.lit("aaa"))
        .otherwise(Col.brand)
        .alias(Col.brand)
    )
    events = pl.concat([events.filter(pl.col(Col.item) != gone), of_first])
    write_log(folder / "log", events, items)
    language = before.shop.recipe.model.language_model
    recipe = tiny_recipe(folder, model={**MODEL, "language_model": language})
    return Shop(recipe, prepare_here(recipe), store_here(recipe))


@pytest.mark.parametrize("tuning", ["last_n", "lora"])
def test_on_the_same_data_it_is_the_bundle_that_starts(
    before: Trained, tmp_path: Path, tuning: str
) -> None:
    """Low-rank updates are in the bundle's layers, and fresh ones change nothing."""
    shop, bundle, worker, vectors = (
        before if tuning == "last_n" else trained(tmp_path, tuning=tuning, last_n=1)
    )
    model, head, rows = started(bundle, shop)
    model.language.requires_grad_(False)
    store = replace(shop.store, vectors=vectors)
    again = Worker(shop.recipe, shop.prepared, store, model, torch.from_numpy(rows))
    again.head = head
    asked = questions(shop, "valid")
    expected, num = worker.validate(asked)
    assert again.validate(asked)[0] == pytest.approx(expected, abs=1e-4 * num)
    assert make_worker(shop).validate(asked)[0] != pytest.approx(expected, abs=1e-2 * num)
    assert not again.trains_texts
    again.train_epoch(chunks(shop.prepared.users(), 8), 10)
    assert torch.equal(again.cache.vectors, torch.from_numpy(np.array(vectors)))


def test_rows_are_found_by_item_and_by_value(before: Trained, changed: Shop) -> None:
    old, new = before.bundle, changed.prepared.catalogue.items
    model, _, rows = started(old, changed)
    fresh, _ = build_two_tower(changed.recipe, changed.prepared)
    table = old.weights("items.")
    assert old.id_rows is not None
    old_row = dict(zip(old.items[Col.item], old.id_rows.tolist(), strict=True))
    moved = 0
    for item_id, row in zip(new[Col.item], rows[:, 0].tolist(), strict=True):
        if row == NO_ID:
            continue
        then = old_row.get(item_id, NO_ID)
        moved += then not in (NO_ID, row)
        expected = fresh.items.ids.weight[row] if then == NO_ID else table["ids.weight"][then]
        assert torch.equal(model.items.ids.weight[row], expected), item_id
    # Those between the new item and the gone one.
    assert moved == 7
    assert "a-first" not in old_row and rows[0, 0] != NO_ID
    names = changed.recipe.model.item_fields
    ours, theirs = ItemFields.of(new, names), ItemFields.of(old.items, names)
    for values, known in zip(ours.values, theirs.values, strict=True):
        for value, row in values.items():
            expected = table["fields.weight"][known[value]] if value in known else torch.zeros(16)
            assert torch.equal(model.items.fields.weight[row], expected), value
    assert "aaa" in ours.values[0] and "aaa" not in theirs.values[0]


def test_all_else_is_the_bundles(before: Trained, changed: Shop) -> None:
    model, head, _ = started(before.bundle, changed)
    weights = before.bundle.weights("")
    for name, value in model.state_dict().items():
        if name not in ("items.ids.weight", "items.fields.weight"):
            assert torch.equal(value, weights[name]), name
    for name, value in head.state_dict().items():
        assert torch.equal(value, weights[f"head.{name}"]), name


def test_what_is_trained_names_the_start(before: Trained) -> None:
    run = Run.open(before.shop.recipe)
    names = {run.training_name("warm", start=version) for version in ("tiny-1", "tiny-2")}
    assert len(names | {run.training_name("train")}) == 3


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("model", "dim", 32), ("model", "item_fields", ["brand"]), ("data", "max_tokens", 12)],
)
def test_another_model_is_refused(before: Trained, section: str, key: str, value: object) -> None:
    raw = before.shop.recipe.resolved()
    raw[section] |= {key: value}
    with pytest.raises(RecipeError, match="another value") as error:
        warm_recipe(recipe_from_dict(raw), before.bundle)
    assert error.value.field == f"{section}.{key}"


def test_another_language_model_is_refused(before: Trained, tmp_path: Path) -> None:
    shop = before.shop
    language = make_language_model(tmp_path / "language")
    weights = load_file(language / WEIGHTS)
    save_file({name: value + 0.1 for name, value in weights.items()}, language / WEIGHTS)
    update = {"model": shop.recipe.model.model_copy(update={"language_model": str(language)})}
    with pytest.raises(RecipeError, match="another language model") as error:
        started(before.bundle, shop._replace(recipe=shop.recipe.model_copy(update=update)))
    assert error.value.field == "model.language_model"


def test_weights_that_do_not_fit_are_refused(before: Trained) -> None:
    """The recipe is told before them; a changed shape inside one recipe is a changed release."""
    shop = before.shop
    update = {"model": shop.recipe.model.model_copy(update={"num_layers": 2})}
    with pytest.raises(BundleError, match="no start for this recipe") as error:
        started(before.bundle, shop._replace(recipe=shop.recipe.model_copy(update=update)))
    assert str(error.value.field).startswith("users.")


@pytest.mark.parametrize(("cut", "told"), [("head", 40), ("valid", 60)])
def test_cuts_before_the_bundles_are_refused(before: Trained, cut: str, told: float) -> None:
    """It would be judged, or its head fitted, on what it has learned from."""
    raw = before.shop.recipe.resolved()
    raw["data"]["cuts"] |= {cut: day(told).isoformat()}
    with pytest.raises(DataError, match="learned from baskets up to") as error:
        warm_recipe(recipe_from_dict(raw), before.bundle)
    assert error.value.field == f"data.cuts.{cut}"


def test_a_retraining_is_refused(before: Trained) -> None:
    raw = before.shop.recipe.resolved()
    raw["train"] |= {"retrain": True}
    with pytest.raises(RecipeError, match="judged on the validation window") as error:
        warm_recipe(recipe_from_dict(raw), before.bundle)
    assert error.value.field == "train.retrain"


def test_what_a_search_found_is_kept(before: Trained) -> None:
    recipe = before.shop.recipe
    before.bundle.meta["searched"] = True
    try:
        raw = recipe.resolved()
        raw["train"] |= {"learning_rate": 0.5, "num_negatives": 77}
        warm = warm_recipe(recipe_from_dict(raw), before.bundle)
    finally:
        before.bundle.meta["searched"] = False
    assert warm.train.learning_rate == recipe.train.learning_rate
    assert warm.train.num_negatives == 77


def test_a_start_is_a_folder_a_version_or_the_champion(before: Trained) -> None:
    recipe, bundle = before.shop.recipe, before.bundle
    registry = Registry.of(recipe)
    registry.add(bundle.folder, bundle.version)
    registry.promote(bundle.version)
    for start in (str(bundle.folder), bundle.version, CHAMPION):
        assert start_bundle(recipe, start).version == bundle.version
    with pytest.raises(BundleError, match="no such version"):
        start_bundle(recipe, "tiny-000000000000")


def test_a_bundle_of_an_earlier_release_opens_and_is_no_start(
    before: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    for path in before.bundle.folder.rglob("*"):
        target = folder / path.relative_to(before.bundle.folder)
        target.mkdir(exist_ok=True) if path.is_dir() else target.write_bytes(path.read_bytes())
    pl.read_parquet(folder / ITEMS).drop(ID_ROW).write_parquet(folder / ITEMS)
    meta = json.loads((folder / BUNDLE).read_text())
    meta["files"][ITEMS] = file_sha256(folder / ITEMS)
    write_json(folder / BUNDLE, sealed(meta))
    assert Bundle.open(folder).items.height == before.bundle.num_items
    with pytest.raises(BundleError, match="earlier release") as error:
        start_bundle(before.shop.recipe, str(folder))
    assert error.value.field == ID_ROW
    assert "train in full" in str(error.value)
