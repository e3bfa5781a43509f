"""Which fields of a recipe a search may draw, and whether each takes what it may be given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recsys.config.checking import known_keys, nearest_key, recipe_from_dict
from recsys.config.recipe import Recipe
from recsys.errors import RecipeError

#: Fields of `train` and `model` that are the same in all trials, and why.
FIXED = {
    "model.language_model": "the texts are encoded once, before the first trial",
    "model.tuning": "the texts are encoded once, up to the layers that learn",
    "model.last_n": "the texts are encoded once, up to the layers that learn",
    "train.num_workers": "the workers of all trials are asked for alike",
    "train.cpus_per_worker": "the workers of all trials are asked for alike",
    "train.use_gpu": "the workers of all trials are asked for alike",
    "train.checkpoint_minutes": "it changes no model",
    "train.max_failures": "it changes no model",
    "train.hang_minutes": "it changes no model",
    "train.epochs": "trials are compared epoch by epoch; `tune.scheduler` ends those that lag",
    "train.retrain": "it follows the search",
    "train.head_rows": "all trials share the questions that the head is fitted on",
    "train.valid_rows": "trials are compared on the same questions",
}
SEARCHED = ("train.", "model.")


def check_space(recipe: Recipe, where: object) -> None:
    """Refuse a search's space that no trial, or not every one, could be drawn from.

    Args:
        recipe: the recipe.
        where: it was read.

    Raises:
        RecipeError: a field is unknown, cannot be searched, or does not take what may be drawn.
    """
    for name, distribution in recipe.tune.space.items():
        field = f"tune.space.{name}"
        if name not in known_keys():
            raise RecipeError("no such field", where=where, field=field, fix=nearest_key(name))
        if not name.startswith(SEARCHED):
            raise RecipeError(
                "cannot be searched: all trials share the prepared data, and are served alike",
                where=where, field=field, fix="search fields of `train` and `model`",
            )  # fmt: skip
        if name in FIXED:
            raise RecipeError(
                f"cannot be searched: {FIXED[name]}", where=where, field=field,
                fix=f"set {name} itself",
            )  # fmt: skip
        for value in distribution.extremes():
            try:
                with_settings(recipe, {name: value})
            except RecipeError as error:
                raise RecipeError(
                    f"{name} cannot be {value}: {error.problem}", where=where, field=field,
                    fix=f"draw only what {name} may be",
                ) from None  # fmt: skip


def searched(recipe: Recipe) -> dict[str, Any]:
    """The recipe's own settings of what its space searches, by dotted names."""
    data = recipe.resolved()
    parts = {name: name.partition(".") for name in recipe.tune.space}
    return {name: data[section][key] for name, (section, _, key) in parts.items()}


def with_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with a trial's settings, by dotted names.

    Raises:
        RecipeError: it is none with them.
    """
    data = recipe.resolved()
    for name, value in settings.items():
        section, _, key = name.partition(".")
        data[section] = {**data[section], key: value}
    return recipe_from_dict(data)
