"""Which keys of two recipes differ, and which of them make another model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from recsys.config.recipe import Recipe

#: In place of the value of a key that a recipe does not have.
UNSET = "(not set)"
#: Sections that decide the model; all others say where things lie and how they are judged, served.
MODEL = ("seed", "data", "pretrain", "model", "train", "tune")
#: Keys of those that say only when, where, or with how much patience.
ELSEWHERE = {
    "data.cuts", "data.source",
    "train.use_gpu", "train.cpus_per_worker", "train.checkpoint_minutes", "train.max_failures",
    "train.hang_minutes",
    "tune.max_concurrent",
}  # fmt: skip


def differences(one: Any, two: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each key whose values differ, dotted, with both values.

    Args:
        one: a resolved recipe, or a section of it.
        two: another one.
        prefix: of the keys.
    """
    for key in sorted({*one, *two}):
        # To leave an event type out (null) is not the same as to say nothing of it.
        left, right = one.get(key, UNSET), two.get(key, UNSET)
        if isinstance(left, dict) and isinstance(right, dict):
            yield from differences(left, right, f"{prefix}{key}.")
        elif left != right:
            yield f"{prefix}{key}", left, right


def changed_keys(one: Recipe, two: Recipe) -> list[str]:
    """The dotted keys that differ and make another model."""
    left, right = (
        {name: value for name, value in recipe.resolved().items() if name in MODEL}
        for recipe in (one, two)
    )
    return [
        key
        for key, _, _ in differences(left, right)
        if not {key, key.rpartition(".")[0]} & ELSEWHERE
    ]
