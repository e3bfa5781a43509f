from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import Shop, prepare_here, tiny_log, tiny_shop

from recsys.config import Recipe, recipe_from_dict
from recsys.errors import DataError
from recsys.model.language import LanguageModel
from recsys.text.pretrained import WEIGHTS, fingerprint, locate
from recsys.training.pretraining.adapted import LANGUAGE_DIR, PRETRAIN_FILE, adapted, made_of


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A shop with a language model that was adapted for it."""
    shop = tiny_shop(tmp_path, pretrain={"epochs": 2})
    origin = locate(shop.recipe.model.language_model)
    folder = shop.recipe.root / LANGUAGE_DIR
    folder.mkdir()
    LanguageModel(origin, "frozen", 1).save(folder, origin)
    _change(folder)
    said = {**made_of(shop.recipe, shop.prepared), "adapted": fingerprint(folder)}
    (shop.recipe.root / PRETRAIN_FILE).write_text(json.dumps(said))
    return shop


def _change(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    name = next(iter(weights))
    save_file(weights | {name: weights[name] + torch.tensor(1.0)}, folder / WEIGHTS)
    fingerprint.cache_clear()


def changed(recipe: Recipe, key: str, value: object) -> Recipe:
    raw = recipe.resolved()
    raw["pretrain"][key] = value
    return recipe_from_dict(raw)


def test_a_recipe_means_the_adapted_language_model(shop: Shop) -> None:
    meant = adapted(shop.recipe, shop.prepared)
    assert meant.model.language_model == str(shop.recipe.root / LANGUAGE_DIR)
    assert meant.pretrain == shop.recipe.pretrain
    assert fingerprint(locate(meant.model.language_model)) != made_of(*shop[:2])["language_model"]


def test_without_an_adaptation_it_means_what_it_says(shop: Shop) -> None:
    recipe = changed(shop.recipe, "epochs", 0)
    assert adapted(recipe, shop.prepared) == recipe


def test_what_was_not_made_yet_is_asked_for(shop: Shop) -> None:
    (shop.recipe.root / PRETRAIN_FILE).unlink()
    with pytest.raises(DataError, match="not adapted yet.*run `recsys pretrain` first") as error:
        adapted(shop.recipe, shop.prepared)
    assert error.value.field == "pretrain.epochs"


def test_of_another_recipe_it_is_refused(shop: Shop) -> None:
    with pytest.raises(DataError, match="run `recsys pretrain` again") as error:
        adapted(changed(shop.recipe, "learning_rate", 0.1), shop.prepared)
    assert error.value.field == "settings"


def test_of_other_data_it_is_refused(shop: Shop) -> None:
    tiny_log(shop.recipe.root.parent / "log", seed=5)
    with pytest.raises(DataError, match="run `recsys pretrain` again") as error:
        adapted(shop.recipe, prepare_here(shop.recipe))
    assert error.value.field == "data_fingerprint"


def test_a_folder_that_was_changed_is_refused(shop: Shop) -> None:
    _change(shop.recipe.root / LANGUAGE_DIR)
    with pytest.raises(DataError, match="run `recsys pretrain` again") as error:
        adapted(shop.recipe, shop.prepared)
    assert error.value.field == "adapted"


def test_training_and_tuning_settings_may_change(shop: Shop) -> None:
    raw = shop.recipe.resolved()
    raw["train"]["learning_rate"] = 0.5
    adapted(recipe_from_dict(raw), shop.prepared)
