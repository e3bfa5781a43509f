"""Reading a recipe: YAML, overrides, and errors that name the nearest key."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from recsys.config.recipe import Recipe
from recsys.errors import RecipeError


class _Loader(yaml.SafeLoader):
    """YAML in which a key that is given twice is an error: one of them would be ignored."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = getattr(key, "value", None)
            if isinstance(name, str) and name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {name!r} is given twice", key.start_mark
                )
            seen.add(name if isinstance(name, str) else id(key))
        return super().construct_mapping(node, deep)


def load_recipe(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read a recipe and apply `a.b=value` overrides (values are YAML).

    Raises:
        RecipeError: the file is missing or not YAML, a key is unknown, a value is wrong, two
            values contradict each other.
    """
    path = Path(path)
    try:
        raw = yaml.load(path.read_text(), _Loader)
    except FileNotFoundError:
        raise RecipeError(
            "no such recipe", where=path, fix="name a file, e.g. recipes/demo.yaml"
        ) from None
    except OSError as error:
        raise RecipeError(
            f"cannot be read: {error.strerror}", where=path, fix="name a readable file"
        ) from None
    # A day that no month has, a number of thousands of digits; thousands of brackets.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RecipeError(
            f"not valid YAML: {error}", where=path, fix="correct the syntax"
        ) from None
    if not isinstance(raw, dict):
        raise RecipeError(
            "a recipe is a mapping of sections", where=path, fix="start with `name:` and `data:`"
        )
    for override in overrides:
        apply_override(raw, override)
    recipe = recipe_from_dict(raw, where=path)
    # Not of the model itself: a bundle that such a recipe once made is still served.
    buckets, workers = recipe.data.num_buckets, recipe.train.num_workers
    if buckets < workers:
        raise RecipeError(
            f"data.num_buckets ({buckets}) lies below train.num_workers ({workers}): each worker "
            "reads history shards of its own, and a bucket is one shard",
            where=path, field="data.num_buckets", value=buckets,
            fix=f"set data.num_buckets to {workers} or more, or train.num_workers to at most "
            f"{buckets}",
        )  # fmt: skip
    return recipe


def recipe_from_dict(raw: dict[str, Any], where: object = "recipe") -> Recipe:
    """Check plain data and make a `Recipe` of it; errors name `where`."""
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        found = error.errors()
        # A mistyped name is both an unknown key and a missing one: the former says more.
        first = min(found, key=lambda each: each["type"] != "extra_forbidden")
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise RecipeError(
                "unknown key", where=where, field=field, fix=_nearest(field)
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


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set one key of plain data, in place, by `a.b=value` (the value is YAML).

    Raises:
        RecipeError: it is no override.
    """
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise RecipeError(
            "not an override", where="--set", value=override, fix="write --set section.key=value"
        )
    node = raw
    *parents, leaf = dotted.split(".")
    for part in parents:
        child = node.get(part)
        if child is None:
            child = node[part] = {}
        if not isinstance(child, dict):
            raise RecipeError(
                "is a value, not a section", where="--set", field=dotted, fix=f"set {part} itself"
            )
        node = child
    try:
        node[leaf] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise RecipeError(
            "not a YAML value", where="--set", field=dotted, value=text, fix="quote it"
        ) from None


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Every dotted key that a recipe may hold."""
    keys = []
    for name, info in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            keys += known_keys(info.annotation, f"{prefix}{name}.")
    return keys


def _nearest(field: str) -> str:
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
