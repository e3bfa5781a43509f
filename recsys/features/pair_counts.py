"""Counts of item pairs as of several cuts, added up over parts of the users.

A part (the users of a bucket) counts its pairs on its own, sorted by the left item. Counts of the
parts add up, so a range of left items is summed, weighed and cut to its strongest pairs by itself.
Neither needs the memory of more than `PAIRS_AT_ONCE` pairs.

Legend: I items, C cuts, N pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import sparse

from recsys.arrays import Int8s, Int32s, Int64s
from recsys.features.neighbours import PAIRS_AT_ONCE, Weigh, strongest_in_rows
from recsys.features.situations import Situations

#: Columns of the pairs, and of the sums over situations.
LEFT, RIGHT, SINCE, COUNT = "left", "right", "since", "count"
ON_LEFT, ON_RIGHT, COUNTED = "on_left", "on_right", "counted"
_PAIRS = {LEFT: pl.Int32, RIGHT: pl.Int32, SINCE: pl.Int8, COUNT: pl.Int32}


def pair_blocks(
    situations: Situations, items: Int64s, num_cuts: int, at_once: int = PAIRS_AT_ONCE
) -> Iterator[pl.DataFrame]:
    """The pairs of a part, `left` rising; pairs that cancel are left out.

    Args:
        situations: of the part's users, over the items that they have.
        items: [I of the part] their rows in the catalogue, rising.
        num_cuts: C.
        at_once: pairs in memory.

    Yields:
        `left`, `right`, `since`, `count`: how often they met in situations that count from the cut
        of that number on.
    """
    kept = situations.where(situations.few)
    sign = np.repeat(kept.sign, np.diff(kept.left.indptr))
    left = kept.left.copy()
    left.data = left.data * sign
    by_item = left.T.tocsr()
    # One column for each item and cut: a situation has its own cut, so one product counts all.
    bits, num_items = (num_cuts - 1).bit_length(), kept.right.shape[1]
    sizes = np.diff(kept.right.indptr)
    columns = (kept.right.indices << bits) | np.repeat(kept.since, sizes).astype(np.int32)
    right = sparse.csr_array(
        (kept.right.data, columns, kept.right.indptr),
        shape=(len(kept.since), num_items << bits), copy=False,
    )  # fmt: skip
    met = np.append(sizes[by_item.indices].astype(np.float64), 0)
    block = np.cumsum(np.add.reduceat(met, by_item.indptr[:-1]) * (np.diff(by_item.indptr) > 0))
    cuts = np.flatnonzero(np.diff(block // at_once)) + 1
    item_rows = items.astype(np.int32)
    for start, stop in zip([0, *cuts], [*cuts, num_items], strict=True):
        product = by_item[start:stop] @ right
        if (kept.sign < 0).any():
            product.eliminate_zeros()
        pairs = {
            LEFT: np.repeat(item_rows[start:stop], np.diff(product.indptr)),
            RIGHT: item_rows[product.indices >> bits],
            SINCE: (product.indices & ((1 << bits) - 1)).astype(np.int8),
            COUNT: product.data.astype(np.int32),
        }
        yield pl.DataFrame(pairs)


def sums_of(situations: Situations, items: Int64s, num_cuts: int) -> pl.DataFrame:
    """What a part's situations come to, item by item and cut by cut; for the arguments see above.

    Returns:
        `item_row`, `since`, and the situations that count from that cut on with the item on the
        left (`on_left`), on the right (`on_right`), and on the right of one that is not too large
        (`counted`). Items without any are left out.
    """
    kept = situations.where(situations.few)
    sides = {
        ON_LEFT: situations.sums(situations.left, num_cuts),
        ON_RIGHT: situations.sums(situations.right, num_cuts),
        COUNTED: kept.sums(kept.right, num_cuts),
    }
    since, place = np.nonzero(np.logical_or.reduce([counts != 0 for counts in sides.values()]))
    return pl.DataFrame(
        {
            "item_row": items[place].astype(np.int32),
            SINCE: since.astype(np.int8),
            **{name: counts[since, place] for name, counts in sides.items()},
        }
    )


@dataclass(frozen=True)
class CutWeights:
    """How pairs are weighed as of one cut.

    Attributes:
        weigh: turns counts into weights.
        place: [I] place of each item in the order of frequency on the right; settles ties.
    """

    weigh: Weigh
    place: Int32s


def strongest_of(
    parts: Sequence[pl.DataFrame], rows: range, weights: Iterable[CutWeights | None], num_kept: int
) -> Iterator[pl.DataFrame | None]:
    """Add up the counts of all parts and keep each left item's strongest pairs, cut by cut.

    Args:
        parts: of `pair_blocks`, `left` rising in each and inside `rows`.
        rows: the left items.
        weights: of each cut, in their order; None for a cut that is not asked for.
        num_kept: pairs kept per left item; of equal ones those with the more frequent right item.

    Yields:
        For each cut that is asked for `left`, `right`, `weight`; sorted by both items.
    """
    stacked = _Stacked.of(parts, rows)
    counts = sparse.csr_array((len(rows), len(stacked.items)), dtype=np.float32)
    first = 0
    for cut, each in enumerate(weights):
        if each is None:
            yield None
            continue
        counts = stacked.added(counts, first, cut)
        first = cut + 1
        left = np.repeat(np.arange(rows.start, rows.stop), np.diff(counts.indptr))
        right = stacked.items[counts.indices]
        found = each.weigh(counts.data, left, right)
        keep = strongest_in_rows(counts.indptr, found, each.place[right], num_kept)
        kept = pl.DataFrame({LEFT: left[keep], RIGHT: right[keep], "weight": found[keep]})
        yield kept.sort(LEFT, RIGHT)


@dataclass(frozen=True)
class _Stacked:
    """The pairs of all parts, part below part.

    Attributes:
        num_rows: left items, R.
        num_parts: P.
        items: right items that are there, rising.
        row: [N] part * R + left item, rising.
        column: [N] number of the right item among `items`.
        since, count: [N] of `pair_blocks`.
    """

    num_rows: int
    num_parts: int
    items: Int64s
    row: Int64s
    column: Int32s
    since: Int8s
    count: Int32s

    @staticmethod
    def of(parts: Sequence[pl.DataFrame], rows: range) -> _Stacked:
        """Stack the parts; see `strongest_of`."""
        number = np.repeat(np.arange(len(parts)), [part.height for part in parts])
        pairs = pl.concat([pl.DataFrame(schema=_PAIRS), *parts])
        left, right = pairs[LEFT].to_numpy(), pairs[RIGHT].to_numpy()
        there = np.zeros(int(right.max(initial=-1)) + 1, dtype=np.bool_)
        there[right] = True
        column = (np.cumsum(there, dtype=np.int32) - 1)[right]
        return _Stacked(
            len(rows), len(parts), np.flatnonzero(there), number * len(rows) + left - rows.start,
            column, pairs[SINCE].to_numpy(), pairs[COUNT].to_numpy(),
        )  # fmt: skip

    def added(self, before: sparse.csr_array, first: int, cut: int) -> sparse.csr_array:
        """CSR [R, right items] the counts as of a cut, from those as of the cut before the first.

        One product adds up the parts, and needs no order inside a row.
        """
        here = np.flatnonzero((self.since >= first) & (self.since <= cut))
        sizes = np.bincount(self.row[here], minlength=self.num_parts * self.num_rows)
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        stack = sparse.csr_array(
            (
                np.concatenate([before.data, self.count[here].astype(np.float32)]),
                np.concatenate([before.indices, self.column[here]]),
                np.concatenate([before.indptr[:-1], before.nnz + bounds]).astype(np.int32),
            ),
            shape=((1 + self.num_parts) * self.num_rows, before.shape[1]),
            copy=False,
        )
        width = 1 + self.num_parts
        of_row = np.arange(self.num_rows)[:, None] + self.num_rows * np.arange(width)
        each_once = sparse.csr_array(
            (
                np.ones(of_row.size, dtype=np.float32),
                of_row.ravel(),
                width * np.arange(self.num_rows + 1),
            ),
            shape=(self.num_rows, stack.shape[0]),
        )
        return each_once @ stack
