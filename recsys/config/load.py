"""Reading a recipe: YAML and overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from recsys.config.checking import recipe_from_dict
from recsys.config.recipe import Recipe
from recsys.config.searchable import check_space
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
    buckets, workers = recipe.data.num_buckets, recipe.train.most_workers
    if buckets < workers:
        raise RecipeError(
            f"data.num_buckets ({buckets}) lies below train.num_workers ({workers}): each worker "
            "reads history shards of its own, and a bucket is one shard",
            where=path, field="data.num_buckets", value=buckets,
            fix=f"set data.num_buckets to {workers} or more, or train.num_workers to at most "
            f"{buckets}",
        )  # fmt: skip
    check_space(recipe, path)
    return recipe


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
    node, parts = raw, dotted.split(".")
    while len(names := _steps(node, parts)) > 1:
        child = node.get(names[0])
        if child is None:
            child = node[names[0]] = {}
        if not isinstance(child, dict):
            raise RecipeError(
                "is a value, not a section", where="--set", field=dotted,
                fix=f"set {names[0]} itself",
            )  # fmt: skip
        node, parts = child, names[1:]
    try:
        node[names[0]] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise RecipeError(
            "not a YAML value", where="--set", field=dotted, value=text, fix="quote it"
        ) from None


def _steps(node: dict[str, Any], parts: list[str]) -> list[str]:
    """The parts of a dotted key, the first ones as one if the section holds them so.

    A search's space holds dotted names.
    """
    for number in range(len(parts), 1, -1):
        if ".".join(parts[:number]) in node:
            return [".".join(parts[:number]), *parts[number:]]
    return parts
