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
from recsys.features.neighbours import strongest_in_rows
from recsys.features.side_features import OWN_FEATURES, OwnItems, own_items
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
    own = own_items(histories, target_codes)
    recent = recent_items(histories)
    near = recent.items_later < NUM_RECENT
    query, item, ago = recent.query[near], recent.item[near], recent.moments_ago[near]
    # All items of the last moment are among the recent ones.
    weights = np.stack([ago == 0, DECAY ** ago.astype(np.float32)], axis=1, dtype=np.float32)
    table = _Table.of(query, item, weights, relations, own, len(histories))
    features = np.zeros((len(table.query), len(PAIR_FEATURES)), dtype=np.float32)
    width = len(OWN_FEATURES)
    features[table.place_of_own, :width] = own.features
    features[table.place_of_own, width] = 1
    if len(features):
        first = np.flatnonzero(np.diff(table.query, prepend=-1))
        largest = np.maximum.reduceat(table.weights, first)
        sizes = np.diff(first, append=len(features))
        shares = table.weights / np.repeat(np.maximum(largest, _TINY), sizes, axis=0)
        features[:, width + 1 : width + 6] = np.log1p(100 * table.weights)
        features[:, width + 6 : width + 11] = shares
    return Candidates(len(histories), table.query, table.item_rows, features, query, item, weights)


@dataclass(frozen=True)
class _Table:
    """Relation weights of each query's candidates: the strongest related items and the own ones.

    Attributes:
        query: [K] rising.
        item_rows: [K] rising within a query.
        weights: [K, 5] by the relations of `_RELATED`, 0 where there is none.
        place_of_own: [own items] place among the K.
    """

    query: Int64s
    item_rows: Int64s
    weights: Float32s
    place_of_own: Int64s

    @staticmethod
    def of(
        query: Int64s,
        item: Int64s,
        weights: Float32s,
        relations: Relations,
        own: OwnItems,
        num_queries: int,
    ) -> _Table:
        """Add up the relations of each query's recent items: a sparse product.

        Args:
            query: [N] rising, whose recent item it is.
            item: [N] recent items.
            weights: [N, 2] of each as one of the last moment, and as a recent one.
            relations: to read.
            own: the queries' own items, which are always kept.
            num_queries: Q.
        """
        num_columns, own_columns, rows = relations.num_items, own.item_rows, None
        related = sparse.vstack([getattr(relations, name)[item] for name in _NAMES], format="csr")
        if related.nnz < num_columns:
            # The product takes memory for each column: of a large catalogue those that occur.
            rows, columns = np.unique(np.append(related.indices, own_columns), return_inverse=True)
            num_columns, own_columns = len(rows), columns[related.nnz :]
            related = sparse.csr_array(
                (related.data, columns[: related.nnz], related.indptr),
                shape=(related.shape[0], num_columns),
            )
        sums = _weighted(query, weights, num_queries) @ related
        row = np.repeat(np.arange(sums.shape[0]), np.diff(sums.indptr))
        kept = strongest_in_rows(sums.indptr, sums.data, sums.indices, NUM_RELATED)
        own_key = own.query * num_columns + own_columns
        key = np.append(row[kept] // len(_SUMS) * num_columns + sums.indices[kept], own_key)
        key.sort()  # several times faster than np.unique, which hashes
        key = key[np.flatnonzero(np.diff(key, prepend=-1))]
        of_query, column = np.divmod(key, num_columns)
        return _Table(
            of_query,
            column if rows is None else rows[column],
            _looked_up(sums, of_query, column, num_queries),
            np.searchsorted(key, own_key),
        )


#: Names of the relations, and (number of the relation, column of the weights) of each of
#: `_RELATED`.
_NAMES: Final = ("transitions", "co_occurrence", "content_similarity")
_SUMS: Final = ((0, 0), (0, 1), (1, 1), (2, 0), (2, 1))
_TINY: Final = np.finfo(np.float32).tiny


def _weighted(query: Int64s, weights: Float32s, num_queries: int) -> sparse.csr_array:
    """CSR [Q x 5, 3 x N] weights of each query's recent items, a row for each of `_RELATED`."""
    places = [np.flatnonzero(weights[:, column]) for _, column in _SUMS]
    row = np.concatenate([query[at] * len(_SUMS) + nth for nth, at in enumerate(places)])
    order = np.argsort(row, kind="stable")
    columns = [at + relation * len(query) for at, (relation, _) in zip(places, _SUMS, strict=True)]
    values = [weights[at, column] for at, (_, column) in zip(places, _SUMS, strict=True)]
    starts = np.searchsorted(row[order], np.arange(num_queries * len(_SUMS) + 1))
    return sparse.csr_array(
        (np.concatenate(values)[order], np.concatenate(columns)[order], starts),
        shape=(num_queries * len(_SUMS), len(_NAMES) * len(query)),
    )


def _looked_up(sums: sparse.csr_array, query: Int64s, column: Int64s, num_queries: int) -> Float32s:
    """[K, 5] the entries of each query's rows in some columns, which rise by query."""
    num_sums, num_columns = len(_SUMS), sums.shape[1]
    found = np.empty((len(query), num_sums), dtype=np.float32)
    ends = sums.indptr[::num_sums].tolist()
    bounds = np.searchsorted(query, np.arange(num_queries + 1)).tolist()
    of_row = np.tile(np.arange(num_sums) * num_columns, num_queries)
    place = sums.indices + np.repeat(of_row, np.diff(sums.indptr))
    # One query after another: its rows, spread out, fit the processor's cache.
    spread = np.zeros((num_sums, num_columns), dtype=np.float32)
    flat = spread.reshape(-1)
    for number in range(num_queries):
        entries = slice(ends[number], ends[number + 1])
        pairs = slice(bounds[number], bounds[number + 1])
        flat[place[entries]] = sums.data[entries]
        found[pairs] = spread[:, column[pairs]].T
        flat[place[entries]] = 0
    return found


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
