"""The text store: hidden states of every distinct text at the language model's split, on disk.

With the lower layers frozen their output never changes: it is computed once for a catalogue and
then read, memory-mapped, by every epoch of every trial. The texts lie ragged, end to end, without
padding.

Legend: T texts, L tokens (padded), K tokens of all texts together, H width of the language model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from recsys.arrays import Float16s, Float32s, Int32s, Int64s
from recsys.errors import DataError
from recsys.storage.matrices import open_matrix
from recsys.storage.reading import map_array, read_json, reading

if TYPE_CHECKING:
    from torch import Tensor

HIDDEN, OFFSETS, VECTORS, META = "hidden.npy", "offsets.npy", "vectors.npy", "text_store.json"
SIMILARITY = "alike"
_FIX = "remove the store's folder: the next training makes it anew"


@dataclass(frozen=True)
class TextStore:
    """A finished store.

    Attributes:
        hidden: [K, H] float16, memory-mapped; states at the split.
        offsets: [T + 1] int64; text t owns tokens `offsets[t]:offsets[t + 1]`.
        vectors: [T, H] float32, memory-mapped; vectors of the untouched language model (zero-shot).
        content_similarity: CSR [I, I], see `item_to_item.content_similarity`.
    """

    hidden: Float16s
    offsets: Int64s
    vectors: Float32s
    content_similarity: sparse.csr_array

    @staticmethod
    def open(folder: Path) -> TextStore:
        """Map a store.

        Raises:
            DataError: there is none, or a file of it is broken.
        """
        if not (folder / META).is_file():
            raise DataError(
                "no text store", where=folder, fix="run `recsys train` or `recsys tune`"
            )
        num_texts = read_json(folder / META, _FIX, {"num_texts": int})["num_texts"]
        hidden = map_array(folder / HIDDEN, _FIX, np.float16, 2)
        with reading(folder / OFFSETS, _FIX):
            offsets = np.array(map_array(folder / OFFSETS, _FIX, np.int64, 1))
            if len(offsets) != num_texts + 1 or offsets[0] or offsets[-1] != len(hidden):
                raise ValueError(f"no bounds of {num_texts} texts in {len(hidden)} tokens")
            if (np.diff(offsets) < 0).any():
                raise ValueError("bounds that fall")
        vectors = map_array(folder / VECTORS, _FIX, np.float32, 2)
        with reading(folder / VECTORS, _FIX):
            if vectors.shape != (num_texts, hidden.shape[1]):
                raise ValueError(f"the shape is {vectors.shape}, not that of the other files")
            if not all(np.isfinite(vectors[low : low + 65_536]).all()
                       for low in range(0, num_texts, 65_536)):  # fmt: skip
                raise ValueError("vectors that are not finite")
        return TextStore(hidden, offsets, vectors, open_matrix(folder, SIMILARITY, _FIX))

    @property
    def num_texts(self) -> int:
        """T."""
        return len(self.offsets) - 1

    def batch(self, text_rows: Int64s) -> tuple[Tensor, Tensor]:
        """Hidden states [n, L, H] float32 and mask [n, L] of some texts, padded to the longest."""
        import torch

        starts, lengths = self.offsets[text_rows], np.diff(self.offsets)[text_rows]
        row, column = ragged_index(lengths)
        width = int(lengths.max(initial=1))
        hidden = np.zeros((len(text_rows), width, self.hidden.shape[1]), dtype=np.float32)
        hidden[row, column] = self.hidden[starts[row] + column]
        mask = np.arange(width) < lengths[:, None]
        return torch.from_numpy(hidden), torch.from_numpy(mask)

    def copy_texts(
        self, known: Int64s, hidden: Float16s, offsets: Int64s, vectors: Float32s
    ) -> None:
        """Copy texts into the arrays of another store.

        Args:
            known: of each text there its row here, -1 where it has none.
            hidden: of that store, written.
            offsets: of that store.
            vectors: of that store, written.
        """
        there = np.flatnonzero(known >= 0)
        here = known[there]
        # Both are sorted by text: those between two new ones lie side by side in both.
        breaks = np.flatnonzero((np.diff(there) != 1) | (np.diff(here) != 1)) + 1
        for to, source in zip(np.split(there, breaks), np.split(here, breaks), strict=True):
            if len(to):
                low, high = self.offsets[source[0]], self.offsets[source[-1] + 1]
                hidden[offsets[to[0]] : offsets[to[-1] + 1]] = self.hidden[low:high]
                vectors[to] = self.vectors[source]

    def by_length(self, size: int, rows: Int64s | None = None) -> Iterator[Int64s]:
        """Rows of texts (all by default) in batches of similar length: little is padding."""
        rows = np.arange(self.num_texts) if rows is None else rows
        order = rows[np.argsort(np.diff(self.offsets)[rows], kind="stable")]
        for start in range(0, len(order), size):
            yield order[start : start + size]


def ragged_index(lengths: Int64s) -> tuple[Int64s, Int64s]:
    """Row and column of every element of a ragged batch, flat."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    column = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return row, column


def pad_tokens(tokens: list[Int32s]) -> tuple[Tensor, Tensor]:
    """Token ids [T, L] and mask [T, L] of some texts."""
    import torch

    lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
    row, column = ragged_index(lengths)
    padded = np.zeros((len(tokens), int(lengths.max(initial=1))), dtype=np.int64)
    padded[row, column] = np.concatenate(tokens) if len(tokens) else []
    return torch.from_numpy(padded), torch.from_numpy(np.arange(padded.shape[1]) < lengths[:, None])


def is_complete(folder: Path) -> bool:
    """Whether a store lies there whole."""
    return (folder / META).is_file()


def write_meta(folder: Path, num_texts: int) -> None:
    """Mark a store as whole."""
    (folder / META).write_text(json.dumps({"num_texts": num_texts}) + "\n")
