"""Approximate retrieval over large catalogues: an inverted file (IVF-Flat).

K-means assigns items to cells. A query reads the cells whose centroids score highest for it (Sivic
& Zisserman 2003). Scores are exact; the list may lack an item of a cell that was not read. The
number of probed cells is chosen when the index is built, on queries of real users: the fewest that
find `RECALL` of the exact list, three standard errors included.

Legend: I items, C cells, E width of the item part (D + 2), Q queries.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from recsys.arrays import Float32s, Int32s, Int64s

#: Recall against the exact list, averaged over the queries, for lists of each length.
RECALL: Final = 0.99
LENGTHS: Final = (100, 1000)
#: Items that the centroids are fitted on, and rounds of k-means.
_SAMPLE: Final = 100_000
_ROUNDS: Final = 8
#: Items assigned to cells at a time.
_AT_ONCE: Final = 16_384
_ARRAYS: Final = ("centroids", "starts", "rows", "parts")


@dataclass(frozen=True)
class Index:
    """An inverted file: items by cell.

    Attributes:
        centroids: [C, E] mean item part of each cell.
        starts: [C + 1] where each cell's items begin.
        rows: [I] catalogue rows, cell by cell.
        parts: [I, E] item parts in that order.
        num_probed: cells that a query reads for a list of up to each of `LENGTHS` items (nprobe).
        recall: measured with that many probed cells.
    """

    centroids: Float32s
    starts: Int64s
    rows: Int32s
    parts: Float32s
    num_probed: tuple[int, ...]
    recall: tuple[float, ...]

    def describe(self) -> list[str]:
        """Probed cells and recall, one line for each of `LENGTHS`."""
        return [
            f"index: {probed} of {len(self.centroids)} cells hold {recall:.1%} of the best {length}"
            for length, probed, recall in zip(LENGTHS, self.num_probed, self.recall, strict=True)
        ]

    @staticmethod
    def build(item_part: Float32s, queries: Float32s, *, seed: int) -> Index:
        """Cluster the items and choose how many cells a query reads.

        Args:
            item_part: [I, E], see `ScoringHead.item_part`.
            queries: [Q, E] user parts, see `ScoringHead.user_part`; at least one.
            seed: draws the first centroids.
        """
        num_cells = max(1, round(4 * len(item_part) ** 0.5))
        # Where queries are long, a distance between items matters more to their scores.
        scaled = item_part * np.sqrt((queries**2).mean(axis=0))
        cell = _cells(scaled, num_cells, np.random.default_rng([seed, 11]))
        rows = np.argsort(cell, kind="stable")
        sizes = np.bincount(cell)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        parts = np.ascontiguousarray(item_part[rows])
        sums = np.add.reduceat(parts, starts[:-1])
        centroids = (sums / sizes[:, None]).astype(np.float32)
        return Index(centroids, starts, rows.astype(np.int32), parts, (), ())._settled(queries)

    def search(self, query: Float32s, length: int, size: int) -> tuple[Int64s, Float32s]:
        """Rows and scores of all items in the cells read, unsorted.

        Args:
            query: [E] a user part.
            length: of the list, at most the last of `LENGTHS`.
            size: least items to read; if the cells hold fewer, more cells are read.
        """
        num_probed = self.num_probed[int(np.searchsorted(LENGTHS, length))]
        worth = self.centroids @ query
        sizes = np.diff(self.starts)
        order = np.argsort(-worth)
        held = np.cumsum(sizes[order])
        enough = int(np.searchsorted(held, size)) + 1
        cells = np.sort(order[: max(num_probed, enough)])
        ends = np.cumsum(sizes[cells])
        scores = np.empty(int(ends[-1]), dtype=np.float32)
        rows = np.empty(len(scores), dtype=np.int64)
        # Neighbouring cells lie side by side and are read at once.
        opens = np.flatnonzero(np.diff(cells, prepend=-2) != 1)
        closes = np.append(opens[1:], len(cells)) - 1
        at = 0
        for first, last in zip(cells[opens].tolist(), cells[closes].tolist(), strict=True):
            low, high = self.starts[first], self.starts[last + 1]
            part = slice(at, at + high - low)
            np.dot(self.parts[low:high], query, out=scores[part])
            rows[part] = self.rows[low:high]
            at += high - low
        return rows, scores

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the arrays; returns the content of `index.json`."""
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        return {"kind": "ivf", "num_probed": self.num_probed, "recall": self.recall}

    @staticmethod
    def open(folder: Path, meta: dict[str, Any]) -> Index:
        """Read what `save` wrote, memory-mapped."""
        arrays = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS)
        centroids, starts, rows, parts = arrays
        settled = tuple(meta["num_probed"]), tuple(meta["recall"])
        return Index(np.array(centroids), np.array(starts), rows, parts, *settled)

    def _settled(self, queries: Float32s) -> Index:
        """The same index with the fewest probed cells that find `RECALL` of the exact lists.

        For a longer list no fewer than for a shorter one.
        """
        num_cells = len(self.centroids)
        cell_of_part = np.repeat(np.arange(num_cells), np.diff(self.starts))
        most = min(LENGTHS[-1], len(self.rows))
        # How many cells each item of the true lists takes, best item first.
        needed = np.empty((len(queries), most), dtype=np.int64)
        for number, query in enumerate(queries):
            scores = self.parts @ query
            true = np.argpartition(-scores, most - 1)[:most]
            true = true[np.argsort(-scores[true])]
            place = np.empty(num_cells, dtype=np.int64)
            place[np.argsort(-(self.centroids @ query))] = np.arange(1, num_cells + 1)
            needed[number] = place[cell_of_part[true]]
        num_probed: list[int] = []
        recall: list[float] = []
        for length in LENGTHS:
            of_list = needed[:, :length]
            # Items that stand out lie anywhere, and may be most of what is best; a longer list
            # could miss them and still be found nearly whole.
            probed = range(max([1, *num_probed]), num_cells)
            fewest = bisect_left(probed, True, key=lambda most: _found_surely(of_list, most))
            num_probed.append(probed.start + fewest)
            recall.append(float((of_list <= num_probed[-1]).mean()))
        return replace(self, num_probed=tuple(num_probed), recall=tuple(recall))


def _found_surely(needed: Int64s, num_probed: int) -> bool:
    """Whether that many cells find `RECALL` for other queries like these [Q, L] too.

    Three standard errors of the mean below what these show.
    """
    share = (needed <= num_probed).mean(axis=1)
    return bool(share.mean() - 3 * share.std() / len(share) ** 0.5 >= RECALL)


def _cells(points: Float32s, num_cells: int, rng: np.random.Generator) -> Int64s:
    """[I] cell of each point, numbered without gaps: k-means, fitted on a sample."""
    size = min(_SAMPLE, len(points))
    sample = points[np.sort(rng.choice(len(points), size, replace=False))]
    centroids = sample[rng.choice(size, min(num_cells, size), replace=False)]
    for _ in range(_ROUNDS):
        cell = _nearest(sample, centroids)
        counts = np.bincount(cell, minlength=len(centroids))
        there = np.flatnonzero(counts)
        starts = (np.cumsum(counts) - counts)[there]
        sums = np.add.reduceat(sample[np.argsort(cell, kind="stable")], starts)
        centroids[there] = sums / counts[there, None].astype(np.float32)
        # One that nothing is near to starts anew.
        centroids[counts == 0] = sample[rng.choice(size, int((counts == 0).sum()))]
    return np.unique(_nearest(points, centroids), return_inverse=True)[1]


def _nearest(points: Float32s, centroids: Float32s) -> Int64s:
    """The nearest centroid of each point."""
    half = (centroids**2).sum(axis=1) / 2
    blocks = (points[low : low + _AT_ONCE] for low in range(0, len(points), _AT_ONCE))
    return np.concatenate([np.argmax(block @ centroids.T - half, axis=1) for block in blocks])
