"""Queries for a recommender over `bundles`' items, and variants of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from bundles import make_items
from tiny_logs import BUY

from recsys.artifacts.bundle import Bundle
from recsys.artifacts.bundle_writing import write_bundle
from recsys.data.catalogue import texts_of
from recsys.data.histories import Histories
from recsys.recommender import Recommender
from recsys.schema import TEXT_FIELDS

NOTHING = np.zeros(0, dtype=np.int32)
HISTORY = Histories.of([3, 5, 3, 40], [BUY] * 4, [10, 20, 30, 30], 100)
NEWCOMER = Histories.of([], [], [], 100)
ITEMS = make_items()
TEXTS = texts_of(ITEMS, TEXT_FIELDS).to_list()


def recommend(
    recommender: Recommender,
    history: Histories,
    k: int,
    exclude: list[int] | None = None,
    **filters: Any,
) -> tuple[list[int], np.ndarray]:
    allowed = recommender.allowed(**filters)
    rows, scores = recommender.recommend(
        history, k, exclude=np.array(exclude or [], dtype=np.int32), allowed=allowed
    )
    return rows.tolist(), scores


def rewritten(bundle: Bundle, target: Path, **parts: Any) -> Bundle:
    """A bundle like another one but for some arguments of `write_bundle`."""
    hidden = ("files", "recipe", "format", "version", "metrics", "num_items", "recipe_hash")
    own = {
        "recipe": bundle.recipe,
        "weights": bundle.weights(""),
        "items": bundle.items,
        "vectors": bundle.vectors,
        "item_part": bundle.item_part,
        "relations": bundle.relations,
        "facts": {name: fact for name, fact in bundle.meta.items() if name not in hidden},
    }
    return write_bundle(target, **(own | parts))
