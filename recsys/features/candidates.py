"""Candidates of the second stage and their features.

Candidates are a user's own items and the items related to the recent ones: by transitions,
co-occurrence or content similarity. The first stage alone ranks all other items.

Legend: Q queries, I items, K (query, item) pairs, D width of the item vectors.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recsys.arrays import Bools, Float32s, Int64s
from recsys.data.histories import Histories
from recsys.data.moments import recent_items
from recsys.features.item_to_item import Relations
from recsys.features.neighbours import strongest
from recsys.features.side_features import OWN_FEATURES, own_items
from recsys.features.stacked import Stacked

#: Items taken from each relation for a query.
NUM_RELATED: Final = 100
#: Latest distinct items whose relations are read, and the weight of one a moment earlier.
NUM_RECENT, DECAY = 20, 0.8

_RELATED: Final = (
    "transitions_last", "transitions_recent", "co_occurrence_recent",
    "content_similarity_last", "content_similarity_recent",
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
NUM_COSINES: Final = 2


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
    features: Float32s


@dataclass(frozen=True)
class Candidates:
    """Candidates of Q queries, with all that does not depend on the item vectors.

    Attributes:
        num_queries: Q.
        query: [K] rising.
        item_rows: [K] rising within a query.
        features: [K, len(PAIR_FEATURES)] float32; the last two columns, the cosines, are 0.
        recent_query: [N] rising, whose recent item it is.
        recent_items: [N].
        recent_weights: [N, 2] of each as one of the last moment, and as a recent one.
    """

    num_queries: int
    query: Int64s
    item_rows: Int64s
    features: Float32s
    recent_query: Int64s
    recent_items: Int64s
    recent_weights: Float32s

    def pairs(self, vectors: Float32s | Stacked) -> Pairs:
        """The candidates with the cosines of these item vectors [I, D], of length 1."""
        return self._filled(vectors, self.features.copy())

    def take(self, picked: Bools) -> Candidates:
        """The candidates for which `picked` [K] holds."""
        return replace(
            self,
            query=self.query[picked],
            item_rows=self.item_rows[picked],
            features=self.features[picked],
        )

    @staticmethod
    def joined(parts: Sequence[Candidates]) -> Candidates:
        """The candidates of consecutive queries."""
        first = np.cumsum([0, *(part.num_queries for part in parts)])
        return Candidates(
            int(first[-1]),
            np.concatenate([p.query + n for p, n in zip(parts, first, strict=False)]),
            np.concatenate([part.item_rows for part in parts]),
            np.concatenate([part.features for part in parts]),
            np.concatenate([p.recent_query + n for p, n in zip(parts, first, strict=False)]),
            np.concatenate([part.recent_items for part in parts]),
            np.concatenate([part.recent_weights for part in parts]),
        )

    def part(self, start: int, stop: int) -> Candidates:
        """The candidates of the queries from `start` until before `stop`."""
        low, high = np.searchsorted(self.query, [start, stop])
        first, last = np.searchsorted(self.recent_query, [start, stop])
        return Candidates(
            stop - start,
            self.query[low:high] - start,
            self.item_rows[low:high],
            self.features[low:high],
            self.recent_query[first:last] - start,
            self.recent_items[first:last],
            self.recent_weights[first:last],
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name, from which `from_arrays` makes the same."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "num_queries"}

    @staticmethod
    def from_arrays(num_queries: int, arrays: Mapping[str, NDArray[Any]]) -> Candidates:
        """What `arrays` was called on; there may be others among them."""
        names = (f.name for f in fields(Candidates) if f.name != "num_queries")
        return Candidates(num_queries, **{name: arrays[name] for name in names})

    def _filled(self, vectors: Float32s | Stacked, features: Float32s) -> Pairs:
        """The pairs whose features are these, which get the cosines."""
        means = _means(
            self.recent_query, self.recent_items, self.recent_weights, vectors, self.num_queries
        )
        features[:, -NUM_COSINES:] = cosines(means, vectors, self.query, self.item_rows)
        return Pairs(self.query, self.item_rows, features)


def make_pairs(
    histories: Histories,
    relations: Relations,
    vectors: Float32s | Stacked,
    target_codes: list[int],
) -> Pairs:
    """All candidates of Q histories, as of each one's moment.

    Args:
        histories: of rows of this catalogue alone.
        relations: as of a moment before the histories' ends.
        vectors: [I, D] item vectors of length 1.
        target_codes: event codes of the target events.
    """
    found = find_candidates(histories, relations, target_codes)
    return found._filled(vectors, found.features)


def find_candidates(
    histories: Histories, relations: Relations, target_codes: list[int]
) -> Candidates:
    """What `make_pairs` finds without the item vectors; its arguments are that one's."""
    num_items = relations.num_items
    own = own_items(histories, num_items, target_codes)
    recent = recent_items(histories)
    near = recent.items_later < NUM_RECENT
    query, item, ago = recent.query[near], recent.item[near], recent.moments_ago[near]
    # All items of the last moment are among the recent ones.
    weights = np.stack([ago == 0, DECAY ** ago.astype(np.float32)], axis=1, dtype=np.float32)
    table = _Table.of(query, item, weights, relations, own.query * num_items + own.item_rows)
    features = np.zeros((len(table.key), len(PAIR_FEATURES)), dtype=np.float32)
    width = len(OWN_FEATURES)
    features[table.place_of_own, :width] = own.features
    features[table.place_of_own, width] = 1
    pair_query = table.key // num_items
    rows = table.key - pair_query * num_items
    if len(rows):
        first = np.flatnonzero(np.diff(pair_query, prepend=-1))
        largest = np.maximum.reduceat(table.weights, first)
        sizes = np.diff(first, append=len(rows))
        shares = table.weights / np.repeat(np.maximum(largest, _TINY), sizes, axis=0)
        features[:, width + 1 : width + 6] = np.log1p(100 * table.weights)
        features[:, width + 6 : width + 11] = shares
    return Candidates(len(histories), pair_query, rows, features, query, item, weights)


@dataclass(frozen=True)
class _Table:
    """Relation weights of each query's candidates: the strongest related items and the own ones.

    Attributes:
        key: [K] query x I + item, rising.
        weights: [K, 5] by the relations of `_RELATED`, 0 where there is none.
        place_of_own: [own items] place among the K.
    """

    key: Int64s
    weights: Float32s
    place_of_own: Int64s

    @staticmethod
    def of(
        query: Int64s, item: Int64s, weights: Float32s, relations: Relations, own_key: Int64s
    ) -> _Table:
        """Add up the relations of each query's recent items.

        One sort groups the weights by item; a sparse product would need memory for every item of
        the catalogue.

        Args:
            query: [N] rising, whose recent item it is.
            item: [N] recent items.
            weights: [N, 2] of each as one of the last moment, and as a recent one.
            relations: to read.
            own_key: rising; these are always kept.
        """
        num_items = relations.num_items
        parts = [_entries(matrix, item) for matrix in (getattr(relations, n) for n in _NAMES)]
        source, other, value = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        kind = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
        # Own items come last within a (query, item) group.
        key = np.concatenate(
            [((query[source] * num_items + other) << 2) | kind, (own_key << 2) | _OWN]
        )
        sums = np.zeros((len(key), 2), dtype=np.float32)
        np.multiply(weights[source], value[:, None], out=sums[: len(source)])
        order = np.argsort(key)
        key, sums = key[order], sums[order]
        opens = np.flatnonzero(np.diff(key, prepend=-1))
        if not len(opens):
            return _Table(key, np.zeros((0, len(_RELATED)), dtype=np.float32), key)
        key, sums = key[opens], np.add.reduceat(sums, opens)
        pair, kind = key >> 2, key & _OWN
        keep = kind == _OWN
        of_query = pair // num_items
        for of_kind, column in _SUMS:
            there = np.flatnonzero((kind == of_kind) & (sums[:, column] > 0))
            keep[there[strongest(of_query[there], sums[there, column], NUM_RELATED)]] = True
        starts = np.flatnonzero(np.diff(pair, prepend=-1))
        kept = np.logical_or.reduceat(keep, starts)
        sizes = np.diff(starts, append=len(pair))
        place = np.repeat(np.cumsum(kept) - 1, sizes)
        found = np.repeat(kept, sizes) & (kind != _OWN)
        by_kind = np.zeros((int(kept.sum()), len(_NAMES), 2), dtype=np.float32)
        by_kind[place[found], kind[found]] = sums[found]
        of_related = np.stack([by_kind[:, of_kind, column] for of_kind, column in _SUMS], axis=1)
        return _Table(pair[starts[kept]], of_related, place[kind == _OWN])


#: Names of the relations, the kind of an own item in a key, and (kind, column of the sums) of each
#: of `_RELATED`.
_NAMES: Final = ("transitions", "co_occurrence", "content_similarity")
_OWN: Final = 3
_SUMS: Final = ((0, 0), (0, 1), (1, 1), (2, 0), (2, 1))
_TINY: Final = np.finfo(np.float32).tiny


def _entries(matrix: sparse.csr_array, rows: Int64s) -> tuple[Int64s, Int64s, Float32s]:
    """The entries of some rows: place of the row among `rows`, column, value."""
    starts = matrix.indptr[rows].astype(np.int64)
    sizes = matrix.indptr[rows + 1] - starts
    source = np.repeat(np.arange(len(rows)), sizes)
    at = np.arange(len(source)) + (starts - np.cumsum(sizes) + sizes)[source]
    return source, matrix.indices[at].astype(np.int64), matrix.data[at]


def _means(
    query: Int64s, item: Int64s, weights: Float32s, vectors: Float32s | Stacked, num_queries: int
) -> Float32s:
    """[Q, 2, D] directions of the mean vectors of each query's items, by either weight."""
    means = np.zeros((num_queries, 2, vectors.shape[1]), dtype=np.float32)
    if len(query):
        first = np.flatnonzero(np.diff(query, prepend=-1))
        weighted = weights[:, :, None] * vectors.take(item, axis=0)[:, None, :]
        means[query[first]] = np.add.reduceat(weighted, first)
    means /= np.maximum(np.linalg.norm(means, axis=-1, keepdims=True), 1e-12)
    return means


def cosines(
    directions: Float32s, vectors: Float32s | Stacked, query: Int64s, rows: Int64s
) -> Float32s:
    """[K, C] inner products of each pair's item with its query's C directions [Q, C, D].

    Args:
        directions: of each query.
        vectors: [I, D].
        query: [K] rising.
        rows: [K] item of each pair.
    """
    out = np.empty((len(query), directions.shape[1]), dtype=np.float32)
    starts = np.searchsorted(query, np.arange(len(directions) + 1)).tolist()
    # A small product for each query: one of all pairs would need a copy of its directions for each.
    for number, (start, stop) in enumerate(itertools.pairwise(starts)):
        np.matmul(vectors.take(rows[start:stop], axis=0), directions[number].T, out=out[start:stop])
    return out
