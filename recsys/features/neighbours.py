"""The strongest item-to-item weights, from co-occurrence counts computed block by block.

Legend: S situations (a pair of moments, a window), I items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from scipy import sparse

from recsys.arrays import Float32s, Int32s, Int64s

#: (counts, left items, right items) -> weights; a weight of 0 leaves the pair out.
Weigh = Callable[[Float32s, Int64s, Int64s], Float32s]

#: Pairs counted, or added up, at a time: bounds the memory of a fit (about 40 bytes a pair) and of
#: a task (about 100, see `pair_counts`).
PAIRS_AT_ONCE: Final = 8_000_000
#: A situation with more items says little of any two of them (a robot, an import), and costs the
#: square of its size.
MAX_ITEMS: Final = 1000


def strongest_pairs(
    left: sparse.csr_array, right: sparse.csr_array, weigh: Weigh, num_kept: int
) -> sparse.csr_array:
    """Count left^T right, weigh the counts and keep the strongest weights of each left item.

    Args:
        left: CSR [S, I] float32, 1 where the item takes part in the situation on the left.
        right: the same on the right.
        weigh: turns counts into weights.
        num_kept: weights kept per left item; equal ones go to the more frequent right item.

    Returns:
        CSR [I, I] float32.
    """
    few = (np.diff(left.indptr) <= MAX_ITEMS) & (np.diff(right.indptr) <= MAX_ITEMS)
    of_left, right = left[few].T.tocsr(), right[few]
    # Columns in the order of frequency, which settles ties.
    by_frequency = np.argsort(-np.asarray(right.sum(axis=0)), kind="stable")
    num_pairs = np.cumsum(of_left @ np.diff(right.indptr).astype(np.float64))
    right = right[:, by_frequency]
    cuts = np.flatnonzero(np.diff(num_pairs // PAIRS_AT_ONCE)) + 1
    blocks = []
    for start, stop in zip([0, *cuts], [*cuts, of_left.shape[0]], strict=True):
        product = of_left[start:stop] @ right
        rows = np.repeat(np.arange(start, stop), np.diff(product.indptr))
        columns = by_frequency[product.indices]
        weights = weigh(product.data, rows, columns)
        keep = strongest_in_rows(product.indptr, weights, product.indices, num_kept)
        blocks.append((weights[keep], rows[keep], columns[keep]))
    weights, rows, columns = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return sparse.csr_array((weights, (rows, columns)), shape=of_left.shape[:1] * 2)


def strongest_in_rows(
    starts: Int32s | Int64s, weights: Float32s, places: Int32s, num_kept: int
) -> Int64s:
    """Positions of each row's `num_kept` largest weights, rising; those above 0 alone.

    A row costs its length: it is not sorted, but for equal weights that cannot all stay.

    Args:
        starts: [rows + 1] bounds of the rows.
        weights: [N] float32.
        places: [N] of equal weights the one with the smallest place stays.
        num_kept: positions kept per row.
    """
    sizes = np.diff(starts)
    crowded = np.flatnonzero(sizes > num_kept)
    least = np.zeros(len(sizes), dtype=np.float32)
    for number in crowded.tolist():
        low, high = starts[number], starts[number + 1]
        nth = high - low - num_kept
        least[number] = np.partition(weights[low:high], nth)[nth]
    of_entry = np.repeat(least, sizes)
    above = weights > of_entry
    # Of the crowded rows alone: in the others the least is 0, which no weight that counts equals.
    equal = np.flatnonzero((weights == of_entry) & (of_entry > 0))
    if len(equal):
        row = np.repeat(np.arange(len(sizes)), sizes)
        num_above = np.add.reduceat(np.append(above, False), starts[:-1], dtype=np.int64)
        order = equal[np.lexsort((places[equal], row[equal]))]
        owner = row[order]
        opens = np.append(True, owner[1:] != owner[:-1])
        place = np.arange(len(order))
        nth_equal = place - np.maximum.accumulate(np.where(opens, place, 0))
        above[order[nth_equal < num_kept - num_above[owner]]] = True
    return np.flatnonzero(above)
