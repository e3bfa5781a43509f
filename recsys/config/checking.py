"""Plain data -> a recipe: what is wrong is named, an unknown key with the nearest known one."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError

from recsys.config.base import ALTERNATIVE
from recsys.config.recipe import Recipe
from recsys.errors import RecipeError


def recipe_from_dict(raw: dict[str, Any], where: object = "recipe") -> Recipe:
    """Check plain data and make a `Recipe` of it; errors name `where`."""
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        found = error.errors()
        # A mistyped name is both an unknown key and a missing one: the former says more.
        first = min(found, key=lambda each: each["type"] != "extra_forbidden")
        parts = [str(part) for part in first["loc"]]
        field = ".".join(part for part in parts if not part.startswith(ALTERNATIVE))
        if first["type"] == "extra_forbidden":
            raise RecipeError(
                "unknown key", where=where, field=field, fix=nearest_key(field)
            ) from None
        if first["type"] == "missing":
            raise RecipeError(
                "missing key", where=where, field=field, fix=f"add `{field}`"
            ) from None
        if first["type"] in ("tuple_type", "list_type"):
            raise RecipeError(
                "is a list", where=where, field=field, value=first["input"],
                fix=f"write [{first['input']}]",
            ) from None  # fmt: skip
        problem = first["msg"].removeprefix("Value error, ")
        value = first["input"] if not isinstance(first["input"], dict | BaseModel) else None
        raise RecipeError(
            problem, where=where, field=field or None, value=value, fix="correct the value"
        ) from None


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Every dotted key that a recipe may hold."""
    keys = []
    for name, info in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            keys += known_keys(info.annotation, f"{prefix}{name}.")
    return keys


def nearest_key(field: str) -> str:
    """The fix of an unknown key: the known one that it is most like, if it is like any."""
    known = known_keys()
    near = difflib.get_close_matches(field, known, n=1, cutoff=0.6)
    if not near:
        leaf = {key.rsplit(".", 1)[-1]: key for key in known}
        near = [
            leaf[name] for name in difflib.get_close_matches(field.rsplit(".", 1)[-1], leaf, n=1)
        ]
    return (
        f"did you mean `{near[0]}`?"
        if near
        else f"remove it; known sections: {', '.join(Recipe.model_fields)}"
    )
