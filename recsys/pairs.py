"""The second stage's candidates: items that a history speaks for, and what it says of them.

They are a user's own items and those that follow, go with or are like the recent ones. All else is
ranked by the first stage alone.

Legend: Q queries, I items, K (query, item) pairs, D width of the item vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recsys.features import OWN_FEATURES, own_items
from recsys.histories import Histories
from recsys.moments import recent_items
from recsys.neighbours import strongest
from recsys.relations import Relations

Floats = NDArray[np.float32]
Int64s = NDArray[np.int64]

#: Items taken from each relation for a query.
NUM_RELATED: Final = 100
#: Latest distinct items whose relations are read, and the weight of one a moment earlier.
NUM_RECENT, DECAY = 20, 0.8

_RELATED: Final = (
    "following_last", "following_recent", "together_recent", "alike_last", "alike_recent",
)  # fmt: skip

#: Columns of `Pairs.features`. Of each relation: the logarithm of its weight, and its share of the
#: query's largest. The last two: cosine to the mean vector of the last moment, of recent items.
PAIR_FEATURES: Final = (
    *OWN_FEATURES,
    "is_own",
    *(f"log_{name}" for name in _RELATED),
    *(f"share_{name}" for name in _RELATED),
    "cosine_last",
    "cosine_recent",
)


@dataclass(frozen=True)
class Pairs:
    """Candidates of some queries.

    Attributes:
        query: [K] rising.
        item_rows: [K] rising within a query.
        features: [K, len(PAIR_FEATURES)] float32.
    """

    query: Int64s
    item_rows: Int64s
    features: Floats


def make_pairs(
    histories: Histories, relations: Relations, vectors: Floats, target_codes: list[int]
) -> Pairs:
    """All candidates of Q histories, as of each one's moment.

    Args:
        histories: of rows of this catalogue alone.
        relations: as of a moment before the histories' ends.
        vectors: [I, D] item vectors of length 1.
        target_codes: event codes of the target events.
    """
    num_items = relations.num_items
    shape = (len(histories), num_items)
    own = own_items(histories, num_items, target_codes)
    recent = recent_items(histories)
    last = recent.weighted(recent.moments_ago == 0, 1.0, shape)
    few = recent.weighted(
        recent.items_later < NUM_RECENT, DECAY ** recent.moments_ago.astype(np.float32), shape
    )
    related = [
        _Weights(product, num_items)
        for product in (
            last @ relations.following, few @ relations.following, few @ relations.together,
            last @ relations.alike, few @ relations.alike,
        )
    ]  # fmt: skip
    own_key = own.query * num_items + own.item_rows
    keys = np.unique(np.concatenate([own_key, *(weights.most() for weights in related)]))
    query, rows = keys // num_items, keys % num_items
    features = np.zeros((len(keys), len(PAIR_FEATURES)), dtype=np.float32)
    width = len(OWN_FEATURES)
    place = np.searchsorted(keys, own_key)
    features[place, :width] = own.features
    features[place, width] = 1
    for number, weights in enumerate(related):
        values = weights.of(keys)
        features[:, width + 1 + number] = np.log1p(100 * values)
        features[:, width + 1 + len(related) + number] = values / weights.largest[query]
    for number, part in enumerate((last, few)):
        features[:, number - 2] = _cosines(part, vectors, query, rows)
    return Pairs(query, rows, features)


class _Weights:
    """One relation's weights of some queries' items, looked up by key (query x I + item)."""

    def __init__(self, matrix: Any, num_items: int) -> None:
        matrix.sort_indices()
        self._query = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        self._keys = self._query * num_items + matrix.indices
        self._values = matrix.data.astype(np.float32)
        self.largest = np.full(matrix.shape[0], np.finfo(np.float32).tiny, dtype=np.float32)
        np.maximum.at(self.largest, self._query, self._values)

    def most(self) -> Int64s:
        """Keys of each query's strongest items."""
        if not len(self._keys):
            return self._keys
        kept: Int64s = self._keys[strongest(self._query, self._values, NUM_RELATED)]
        return kept

    def of(self, keys: Int64s) -> Floats:
        """[K] weights, 0 where there is none."""
        if not len(self._keys):
            return np.zeros(len(keys), dtype=np.float32)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[place] == keys, self._values[place], np.float32(0))


def _cosines(weights: Any, vectors: Floats, query: Int64s, rows: Int64s) -> Floats:
    """[K] cosine of each pair's item and the weighted mean of the query's items."""
    used, at = np.unique(weights.indices, return_inverse=True)
    narrow = type(weights)((weights.data, at, weights.indptr), (weights.shape[0], len(used)))
    means = np.asarray(narrow @ vectors[used], dtype=np.float32)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    out = np.empty(len(query), dtype=np.float32)
    for low in range(0, len(query), 65_536):
        part = slice(low, low + 65_536)
        np.einsum("kd,kd->k", means[query[part]], vectors[rows[part]], out=out[part])
    return out
