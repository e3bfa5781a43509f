"""Re-ranking: diversity and caps, applied to a pool of the best items.

Legend: N items of the pool, k places, D width of the item vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from recsys.arrays import Float32s, Int64s

#: Size of the pool for each place of the list, and its least size.
POOL_PER_PLACE, LEAST_POOL = 10, 100
#: The category of an item that has none: no cap counts it.
NO_CATEGORY: Final = -1


def centred(vectors: Float32s, mean: Float32s) -> Float32s:
    """[N, D] vectors less the catalogue's mean vector [D], of length 1 again.

    Trained vectors share a large common part, which hides how two items differ.

    Source: Mu & Viswanath 2018, arXiv 1702.01417.
    """
    less = vectors - mean
    return less / np.maximum(np.linalg.norm(less, axis=1, keepdims=True), np.float32(1e-12))


def diversify(
    scores: Float32s,
    vectors: Float32s,
    categories: Int64s,
    k: int,
    *,
    diversity: float,
    max_per_category: int | None = None,
) -> Int64s:
    """Pick k items of a pool by maximal marginal relevance (MMR).

    A place goes to the item with the largest (1 - diversity) * relevance - diversity * similarity.
    Relevance is the score, scaled to 0..1 over the pool. Similarity is the largest cosine to an
    item already in the list, not below 0.

    Source: Carbonell & Goldstein 1998.

    Args:
        scores: [N] falling.
        vectors: [N, D] of length 1.
        categories: [N], `NO_CATEGORY` where unknown.
        k: places.
        diversity: 0 keeps the order of the scores; 1 uses them for the first place only.
        max_per_category: items of one category, at most.

    Returns:
        Positions in the pool, in the order to show; fewer than k if the rules leave no more.
    """
    assert 0 <= diversity <= 1
    left = np.ones(len(scores), dtype=bool)
    spread = float(scores[0] - scores[-1]) if len(scores) else 0.0
    relevance = (scores - scores[-1]) / spread if spread > 0 else np.ones_like(scores)
    similarity = np.zeros(len(scores), dtype=np.float32)
    taken: dict[int, int] = {}
    picked: list[int] = []
    while len(picked) < k and left.any():
        weight = diversity if picked else 0.0
        value = np.where(left, (1 - weight) * relevance - weight * similarity, -np.inf)
        best = int(value.argmax())
        picked.append(best)
        left[best] = False
        np.maximum(similarity, vectors @ vectors[best], out=similarity)
        category = int(categories[best])
        if max_per_category is not None and category != NO_CATEGORY:
            taken[category] = taken.get(category, 0) + 1
            if taken[category] >= max_per_category:
                left &= categories != category
    return np.array(picked, dtype=np.int64)


def diverse_list(
    pool_of: Callable[[int], tuple[Int64s, Float32s]],
    k: int,
    vectors_of: Callable[[Int64s], Float32s],
    categories: Int64s,
    *,
    diversity: float,
    max_per_category: int | None,
) -> tuple[Int64s, Float32s]:
    """Pick k by `diversify` from the best of the catalogue.

    Args:
        pool_of: size -> rows and scores of that many best items, or of all that may come back.
        k: places.
        vectors_of: rows [N] -> their vectors [N, D] of length 1.
        categories: [I], `NO_CATEGORY` where unknown.
        diversity: see `diversify`.
        max_per_category: see `diversify`.

    Returns:
        Rows in the order to show, and their scores.
    """
    size = max(POOL_PER_PLACE * k, LEAST_POOL)
    while True:
        rows, pool = pool_of(size)
        picked = diversify(
            pool, vectors_of(rows), categories[rows], k,
            diversity=diversity, max_per_category=max_per_category,
        )  # fmt: skip
        # A cap may empty the pool; then more of the catalogue competes.
        if len(picked) == k or len(rows) < size:
            return rows[picked], pool[picked]
        size *= 10
