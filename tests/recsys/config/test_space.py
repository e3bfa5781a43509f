"""A search's space: read, refused by name, applied to the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_recipe import changed

from recsys.config import Recipe, load_recipe, recipe_from_dict, searched, with_settings
from recsys.errors import RecipeError


def loaded(file: Path, *overrides: str) -> dict[str, str]:
    """The space of the small recipe with overrides, in words."""
    return {name: str(each) for name, each in load_recipe(file, overrides).tune.space.items()}


class TestReading:
    def test_by_default_learning_rate_and_batch_size(self, file: Path) -> None:
        assert loaded(file) == {
            "train.learning_rate": "0.0003 to 0.005, log-uniform",
            "train.batch_size": "one of 16, 32",
        }

    def test_every_kind_of_distribution(self, file: Path) -> None:
        space = (
            "{train.weight_decay: {uniform: [0, 0.1]}, model.num_layers: {int: [1, 3]}, "
            "train.optimizer: {choice: [adamw, sgd]}, model.side_features: {choice: [true, false]}}"
        )
        assert loaded(file, f"tune.space={space}") == {
            "train.weight_decay": "0 to 0.1",
            "model.num_layers": "1 to 3, whole",
            "train.optimizer": "one of adamw, sgd",
            "model.side_features": "one of True, False",
        }

    def test_written_out_or_dotted(self, file: Path) -> None:
        one = loaded(file, "tune.space={train: {batch_size: {choice: [4]}}}")
        assert one == loaded(file, "tune.space={train.batch_size: {choice: [4]}}")

    def test_one_field_is_overridden_under_its_dotted_name(self, file: Path) -> None:
        space = "tune.space={train.batch_size: {choice: [4]}, model.dropout: {uniform: [0, 0.2]}}"
        assert loaded(file, space, "tune.space.model.dropout.uniform=[0.1, 0.3]") == {
            "train.batch_size": "one of 4", "model.dropout": "0.1 to 0.3",
        }  # fmt: skip
        assert loaded(file, space, "tune.space.model.dropout={choice: [0]}") == {
            "train.batch_size": "one of 4", "model.dropout": "one of 0",
        }  # fmt: skip

    def test_recipes_of_before_say_it_by_keys_of_their_own(self) -> None:
        old = {"learning_rate": {"low": 0.001}, "batch_size": [8]}
        assert recipe_from_dict(changed("tune", old)).tune.space == recipe_from_dict(
            changed(
                "tune.space",
                {
                    "train.learning_rate": {"loguniform": [0.001, 0.005]},
                    "train.batch_size": {"choice": [8]},
                },
            )
        ).tune.space  # fmt: skip

    def test_the_resolved_space_is_the_space(self, file: Path) -> None:
        recipe = load_recipe(file, ["tune.space={model.num_layers: {int: [1, 3]}}"])
        assert recipe.resolved()["tune"]["space"] == {"model.num_layers": {"int": [1, 3]}}
        assert recipe_from_dict(recipe.resolved()) == recipe


@pytest.mark.parametrize(
    ("space", "field", "problem"),
    [
        ("{}", "tune.space", "at least 1 item"),
        ("3", "tune.space", "valid dictionary"),
        ("{train.learning_rte: {uniform: [0.1, 1]}}", "tune.space.train.learning_rte",
         "did you mean `train.learning_rate`"),
        ("{data.max_tokens: {int: [8, 16]}}", "tune.space.data.max_tokens", "prepared data"),
        ("{serve.port: {int: [8, 16]}}", "tune.space.serve.port", "served alike"),
        ("{run_dir: {choice: [a, b]}}", "tune.space.run_dir", "cannot be searched"),
        ("{model.tuning: {choice: [full, lora]}}", "tune.space.model.tuning", "encoded once"),
        ("{train.num_workers: {int: [1, 2]}}", "tune.space.train.num_workers", "asked for alike"),
        ("{model.dropout: {uniform: [0.5, 1.5]}}", "tune.space.model.dropout",
         "model.dropout cannot be 1.5: Input should be less than or equal to 1"),
        ("{model.dropout: {uniform: [-0.5, 1]}}", "tune.space.model.dropout", "cannot be -0.5"),
        ("{train.batch_size: {uniform: [8, 16]}}", "tune.space.train.batch_size",
         "valid integer"),
        ("{model.dim: {choice: [64, 126]}}", "tune.space.model.dim",
         "model.dim cannot be 126: model.dim (126) must be a multiple of model.num_heads (4)"),
        ("{train.optimizer: {choice: [adamw, adam]}}", "tune.space.train.optimizer",
         "cannot be adam"),
        ("{model.dropout: {uniform: [1, 0.5]}}", "tune.space.model.dropout",
         "high (0.5) lies below low (1.0)"),
        ("{model.dropout: {choice: []}}", "tune.space.model.dropout.choice", "at least 1 item"),
        ("{model.dropout: {unifrom: [0, 1]}}", "tune.space",
         "did you mean model.dropout.uniform?"),
        ("{model.dropout: 0.1}", "tune.space", "model.dropout is no distribution: write {log"),
        ("{model.dropout: {uniform: [0, 1], choice: [0]}}", "tune.space.model.dropout",
         "given is uniform and choice"),
        ("{train.learning_rate: {loguniform: [0, 1]}}", "tune.space.train.learning_rate",
         "must lie above 0"),
        ("{model.dropout: {uniform: [0]}}", "tune.space.model.dropout.uniform.1", "missing"),
        ("{model.dropout: {uniform: [0, 1]}, model: {dropout: {uniform: [0, 1]}}}", "tune.space",
         "model.dropout is given twice"),
    ],
)  # fmt: skip
def test_what_no_trial_could_be_drawn_from(
    file: Path, space: str, field: str, problem: str
) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(file, [f"tune.space={space}"])
    assert error.value.field == field
    assert problem in str(error.value)


def test_settings_make_a_recipe() -> None:
    recipe = recipe_from_dict(changed("name", "shop"))
    settings: dict[str, Any] = {"train.learning_rate": 0.02, "model.dropout": 0.25}
    found = with_settings(recipe, settings)
    assert (found.train.learning_rate, found.model.dropout) == (0.02, 0.25)
    assert searched(with_settings(recipe, {"train.batch_size": 4})) == {
        "train.learning_rate": recipe.train.learning_rate, "train.batch_size": 4,
    }  # fmt: skip
    assert isinstance(found, Recipe) and with_settings(found, {}) == found
    with pytest.raises(RecipeError, match="model.dim"):
        with_settings(recipe, {"model.dim": 3})
