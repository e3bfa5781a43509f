"""Item-to-item relations: from a log, as of a moment, and from the texts.

The baselines `last_item` and `item_knn` rank by the counted ones alone; the second stage reads all
of them as features beside the encoders.

Legend: I items, M moments, T distinct texts, H width of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

import numpy as np
from scipy import sparse

from recsys.arrays import Float32s, Int32s, Int64s
from recsys.data.histories import UserEvents
from recsys.data.moments import Moments, moments_of
from recsys.errors import DataError, RaycommendError
from recsys.features.neighbours import Weigh, strongest_pairs
from recsys.features.situations import Situations, first_cuts, transitions_in, windows_in
from recsys.storage.matrices import matrix_files, open_matrix, save_matrix

#: Relations kept per item for the second stage.
NUM_KEPT: Final = 100
#: Of the relations that are counted: see `count_transitions` and `count_co_occurrence`.
TRANSITIONS_SHRINKAGE: Final = 10
WINDOW, WINDOWS_SHRINKAGE = 5, 20
#: The relations that are counted.
COUNTED: Final = ("transitions", "co_occurrence")
#: Nearest texts of a text, and the items of each, that count as similar.
NUM_SIMILAR, ITEMS_OF_TEXT = 32, 3


#: Relation -> its name on disk, in prepared data and bundles.
FILES: Final = {
    "transitions": "following",
    "co_occurrence": "together",
    "content_similarity": "alike",
}


#: Numbers of situations, item by item: whole numbers, of either type.
Counts = Float32s | Int64s


@dataclass(frozen=True)
class Relations:
    """All relations; each is CSR [I, I] float32.

    Attributes:
        transitions: see `count_transitions`.
        co_occurrence: see `count_co_occurrence`.
        content_similarity: see `content_similarity`; it alone covers items without events.
    """

    transitions: sparse.csr_array
    co_occurrence: sparse.csr_array
    content_similarity: sparse.csr_array

    @property
    def num_items(self) -> int:
        """I."""
        return int(self.transitions.shape[0])

    @staticmethod
    def none(num_items: int) -> Relations:
        """Relations without entries."""
        empty = sparse.csr_array((num_items, num_items), dtype=np.float32)
        return Relations(empty, empty, empty)

    def with_items(self, num_added: int) -> Relations:
        """The same relations in a catalogue with more items, which have no related items."""
        grown = (_widened(getattr(self, field.name), num_added) for field in fields(self))
        return Relations(*grown)

    def save(self, folder: Path) -> None:
        """Write plain NumPy arrays into a folder, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            save_matrix(folder, FILES[field.name], getattr(self, field.name))

    @staticmethod
    def open(folder: Path, fix: str, error: type[RaycommendError] = DataError) -> Relations:
        """Read what `save` wrote, memory-mapped; see `open_matrix`."""
        return Relations(
            *(open_matrix(folder, FILES[field.name], fix, error) for field in fields(Relations))
        )


def relation_files() -> list[str]:
    """Names of the files that `Relations.save` writes."""
    return [file for name in FILES.values() for file in matrix_files(name)]


def _widened(matrix: sparse.csr_array, num_added: int) -> sparse.csr_array:
    """The matrix with empty rows and columns behind; its entries are shared."""
    size = matrix.shape[0] + num_added
    starts = np.concatenate([matrix.indptr, np.repeat(matrix.indptr[-1:], num_added)])
    return sparse.csr_array((matrix.data, matrix.indices, starts), shape=(size, size), copy=False)


def count_relations(
    train: UserEvents, num_items: int, target_codes: Sequence[int]
) -> dict[str, sparse.csr_array]:
    """`transitions` and `co_occurrence` of exactly these events: the caller cuts the time."""
    moments = moments_of(train, num_items, target_codes)
    return {
        "transitions": count_transitions(
            moments, shrinkage=TRANSITIONS_SHRINKAGE, num_kept=NUM_KEPT
        ),
        "co_occurrence": count_co_occurrence(
            moments, window=WINDOW, shrinkage=WINDOWS_SHRINKAGE, num_kept=NUM_KEPT
        ),
    }


def relation_situations(
    users: UserEvents, cuts: Sequence[int], target_codes: Sequence[int], *, num_removed: int = 0
) -> tuple[dict[str, Situations], Int64s]:
    """The situations that each relation of a part of the users counts.

    Args:
        users: of the part.
        cuts: all but the last, which is the end of the log; microseconds.
        target_codes: event codes of a relevant item.
        num_removed: so many users, the first ones, are taken away again: as they were before.

    Returns:
        Relation -> situations over the part's own items; and the rows of these in the catalogue.
    """
    items, local = np.unique(users.item_rows, return_inverse=True)
    own = replace(users, item_rows=local.astype(np.int32))
    moments = moments_of(own, len(items), target_codes)
    rows = items.astype(np.int64)
    if not num_removed:
        return {name: _situations(name, moments, cuts) for name in COUNTED}, rows
    is_counted = moments.user >= num_removed
    counted, removed = moments.where(is_counted), moments.where(~is_counted)
    found = {
        name: _situations(name, counted, cuts).joined(_situations(name, removed, cuts).reversed())
        for name in COUNTED
    }
    return found, rows


def _situations(name: str, moments: Moments, cuts: Sequence[int]) -> Situations:
    since = first_cuts(moments, cuts)
    if name == "transitions":
        return transitions_in(moments, since)
    return windows_in(moments, since, window=WINDOW, num_cuts=len(cuts) + 1)


def count_transitions(moments: Moments, *, shrinkage: float, num_kept: int) -> sparse.csr_array:
    """[I, I] transition probabilities, shrunk for low support.

    The share of the left item's moments whose next moment has a target event of the right item.

    Source: the Markov-chain part of FPMC (Rendle et al. 2010), counted instead of factorised.

    Args:
        moments: of the log.
        shrinkage: moments added to each item's own in the denominator.
        num_kept: strongest transitions kept per item.
    """
    followed = np.flatnonzero(moments.user[1:] == moments.user[:-1])
    before, after = moments.items[followed], moments.target_items[followed + 1]
    weigh = transition_weights(before.sum(axis=0), shrinkage)
    return strongest_pairs(before, after, weigh, num_kept)


def transition_weights(left: Counts, shrinkage: float) -> Weigh:
    """How transitions are weighed.

    Args:
        left: [I] moments of each item that have a next one.
        shrinkage: see `count_transitions`.
    """
    divisor = np.asarray(left, dtype=np.float32) + np.float32(shrinkage)
    return lambda counts, rows, _: counts / divisor[rows]


def count_co_occurrence(
    moments: Moments, *, window: int, shrinkage: float, num_kept: int
) -> sparse.csr_array:
    """[I, I] cosine of items over windows of a user's consecutive moments; the diagonal is zero.

    Windows with an event of the left item and a target event of the right one, over the geometric
    mean of both items' windows plus the shrinkage.

    Source: Sarwar et al. 2001, with the shrinkage of Bell & Koren 2007.

    Args:
        moments: of the log.
        window: moments in a window.
        shrinkage: added to the cosine's denominator: pairs of low support are shrunk.
        num_kept: neighbours kept per item.
    """
    opens = moments.nth_of_user % window == 0
    merged = moments.merged(np.cumsum(opens) - 1)
    items, targets = ((counts > 0).astype(np.float32) for counts in merged)
    weigh = co_occurrence_weights(items.sum(axis=0), targets.sum(axis=0), shrinkage)
    return strongest_pairs(items, targets, weigh, num_kept)


def co_occurrence_weights(left: Counts, right: Counts, shrinkage: float) -> Weigh:
    """How co-occurrence is weighed.

    Args:
        left: [I] windows of each item.
        right: [I] windows with a target event of it.
        shrinkage: see `count_co_occurrence`.
    """
    item_norm, target_norm = (np.sqrt(np.asarray(n, dtype=np.float32)) for n in (left, right))

    def cosine(counts: Float32s, rows: Int64s, columns: Int64s) -> Float32s:
        weights = counts / (item_norm[rows] * target_norm[columns] + np.float32(shrinkage))
        return np.where(rows == columns, np.float32(0), weights)

    return cosine


def content_similarity(text_vectors: Float32s, text_rows: Int32s) -> sparse.csr_array:
    """[I, I] fourth power of the cosine of two items' texts; the nearest alone, no diagonal.

    The power lets one close text outweigh many vaguely related ones. Exact, by blocks: time grows
    with the square of T.

    Args:
        text_vectors: [T, H] of length 1, of the untouched language model.
        text_rows: [I] each item's text.
    """
    num_texts, num_items = len(text_vectors), len(text_rows)
    order = np.argsort(text_rows, kind="stable")
    counts = np.bincount(text_rows, minlength=num_texts)
    first = np.cumsum(counts) - counts
    num_near = min(NUM_SIMILAR, num_texts)
    near = np.empty((num_texts, num_near), dtype=np.int64)
    cosines = np.empty((num_texts, num_near), dtype=np.float32)
    for low in range(0, num_texts, 512):
        block = text_vectors[low : low + 512] @ text_vectors.T
        picked = np.argpartition(-block, num_near - 1, axis=1)[:, :num_near]
        near[low : low + 512] = np.sort(picked, axis=1)
        cosines[low : low + 512] = np.take_along_axis(block, near[low : low + 512], axis=1)
    # [I, near texts, items of a text]; places that hold no item are left out below.
    nth = np.arange(ITEMS_OF_TEXT)
    of_item = near[text_rows]
    there = (nth < counts[of_item][..., None]) & (cosines[text_rows] > 0)[..., None]
    place = np.minimum(first[of_item][..., None] + nth, num_items - 1)
    columns = order[place]
    there &= columns != np.arange(num_items)[:, None, None]
    weights = np.broadcast_to(cosines[text_rows][..., None] ** 4, there.shape)
    rows = np.broadcast_to(np.arange(num_items)[:, None, None], there.shape)
    return sparse.csr_array(
        (weights[there], (rows[there], columns[there])), shape=(num_items, num_items)
    )
