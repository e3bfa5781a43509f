"""Every key of a recipe stands in the reference, with its default and what it means."""

from __future__ import annotations

import re
from types import ModuleType

import pytest

from recsys.config import Arm, Distribution, TextEncoderAutoscaling, known_keys

CELLS = re.compile(
    r"^\| `(?P<key>[^`]+)` \| (?P<type>.+?) \| (?P<default>.+?) \| (?P<meaning>.*) \|$"
)


@pytest.fixture(scope="module")
def rows(recipe_reference: ModuleType) -> dict[str, re.Match[str]]:
    found = [CELLS.match(line) for line in recipe_reference.reference().splitlines()]
    return {match["key"]: match for match in found if match}


def test_every_key_is_there_once(rows: dict[str, re.Match[str]]) -> None:
    sections = {key for key in known_keys() if any(k.startswith(f"{key}.") for k in known_keys())}
    inside = {f"serve.arms[].{name}" for name in Arm.model_fields}
    inside |= {f"tune.space.<field>.{name}" for name in Distribution.model_fields}
    assert rows.keys() == (set(known_keys()) - sections) | inside


def test_every_key_has_a_meaning(rows: dict[str, re.Match[str]]) -> None:
    assert [key for key, row in rows.items() if not row["meaning"]] == []


def test_what_the_script_adds_is_not_told_elsewhere(recipe_reference: ModuleType) -> None:
    """A docstring in `recsys/config` makes the script's own words needless."""
    comments = recipe_reference.canonical_comments(recipe_reference.CANONICAL.read_text())
    told = set(comments)
    for prefix, model, _ in recipe_reference.sections():
        told |= {prefix + name for name in recipe_reference.docstrings(model)}
    assert recipe_reference.PLAIN.keys() <= set(known_keys())
    assert not recipe_reference.PLAIN.keys() & told


@pytest.mark.parametrize(
    ("key", "kind", "default", "meaning"),
    [
        ("serve.port", "whole number ≥ 1 ≤ 65535", "`8000`", "Of HTTP."),
        ("data.cuts.valid", "date or time", "needed", "Chooses epoch and trial"),
        ("tune.reduction_factor", "whole number ≥ 2", "`2`", "ASHA keeps one"),
        ("tune.space.<field>.int", "list of whole number or null", "`null`", "`[low, high]`"),
        ("train.learning_rate", "number > 0", "`0.001`", "`tune` searches it"),
        ("model.tuning", "`frozen`, `lora`, `last_n`, `full`", "`last_n`", "Frozen, last_n"),
        ("embed.index_above", "whole number ≥ 1 or null", "`200000`", "Catalogues of more items"),
        ("serve.arms[].shadow", "true, false", "`false`", "Ranks what an other arm"),
        ("train.retrain", "true, false", "`false`", "Once the best epoch is known"),
    ],
)
def test_a_row(
    rows: dict[str, re.Match[str]], key: str, kind: str, default: str, meaning: str
) -> None:
    row = rows[key]
    assert (row["type"], row["default"]) == (kind, default)
    assert row["meaning"].startswith(meaning)


def test_a_comment_goes_on_below(recipe_reference: ModuleType) -> None:
    text = (
        "a:\n"
        "  b: 1          # first\n"
        "                # and second\n"
        "  # of the next\n"
        '  c: "x # y"    # third\n'
        "d: 2\n"
    )
    comments = recipe_reference.canonical_comments(text)
    assert comments == {"a.b": "first and second", "a.c": "third"}


def test_docstrings_are_read(
    recipe_reference: ModuleType,
) -> None:
    assert recipe_reference.docstrings(TextEncoderAutoscaling)["min_replicas"].startswith("With 0")
