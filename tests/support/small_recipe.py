"""The least that a recipe says, and the same with one key set."""

from __future__ import annotations

import copy
from typing import Any

SMALL = {
    "name": "shop",
    "data": {"source": "log", "cuts": {"valid": "2024-03-01", "test": "2024-04-01"}},
}


def changed(dotted: str, value: object) -> dict[str, Any]:
    """The small recipe with one key set."""
    raw = copy.deepcopy(SMALL)
    node: dict[str, Any] = raw
    *sections, leaf = dotted.split(".")
    for section in sections:
        node = node.setdefault(section, {})
    node[leaf] = value
    return raw
