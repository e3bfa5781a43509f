"""`recipes/canonical.yaml` holds every key, and its default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from recsys.config import Data, known_keys, recipe_from_dict

ROOT = Path(__file__).parents[2]
RAW = yaml.safe_load((ROOT / "recipes" / "canonical.yaml").read_text())
#: What it sets as an example.
EXAMPLES = frozenset({"name", "data.event_types", "data.source", "data.cuts"})
#: What changes no result, or asks for none of them anew, and so is no part of a resolved recipe.
UNRESOLVED = frozenset(
    {"data.memory_gb", "data.attribution_window_h"}
    | {f"train.warm_{name}" for name in ("epochs", "rate", "users")}
)
APART = ("data.cuts.", "nightly.")


def has(key: str) -> bool:
    node = RAW
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def value_of(node: Any, key: str) -> object:
    for part in key.split("."):
        node = node[part]
    return node


def test_every_key_is_there() -> None:
    assert not [key for key in known_keys() if not has(key)]


def test_every_value_is_the_default() -> None:
    least = {"name": RAW["name"], "data": {"source": "x", "cuts": RAW["data"]["cuts"]}}
    given, default = recipe_from_dict(RAW).resolved(), recipe_from_dict(least).resolved()
    sections = {key.rsplit(".", 1)[0] for key in known_keys() if "." in key}
    for key in known_keys():
        if key not in EXAMPLES | UNRESOLVED | sections and not key.startswith(APART):
            assert value_of(given, key) == value_of(default, key), key
    assert recipe_from_dict(RAW).nightly == recipe_from_dict(least).nightly
    for key in sorted(UNRESOLVED):
        section, name = key.split(".")
        found = [getattr(getattr(recipe_from_dict(raw), section), name) for raw in (RAW, least)]
        assert found[0] == found[1], key


def test_the_text_fields_are_named_in_their_order() -> None:
    assert tuple(RAW["data"]["text_fields"]) == Data.model_fields["text_fields"].default
