"""Vectors of texts by trained layers, kept in a run's folder: known texts need no encoding again.

They follow from a checkpoint and the text store: deleting them loses nothing but time.

Legend: T texts, H width of the language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recsys.arrays import Float32s, Int64s
from recsys.schema import Col
from recsys.storage.reading import map_array, read_parquet, reading

HASHES, VECTORS = "hashes.parquet", "vectors.npy"
_FIX = "remove the folder: the next job makes it anew"


@dataclass(frozen=True)
class TextVectors:
    """Vectors of a catalogue's distinct texts.

    Attributes:
        folder: where they lie.
        vectors: [T, H] float32, memory-mapped.
        hashes: [T] content hash of each text.
    """

    folder: Path
    vectors: Float32s
    hashes: pl.Series

    @staticmethod
    def open(folder: Path) -> TextVectors:
        """Map them.

        Raises:
            DataError: a file is missing or broken.
        """
        hashes = read_hashes(folder)
        vectors = map_array(folder / VECTORS, _FIX, np.float32, 2)
        with reading(folder / VECTORS, _FIX):
            if len(vectors) != len(hashes):
                raise ValueError(f"{len(vectors)} vectors of {len(hashes)} texts")
        return TextVectors(folder, vectors, hashes)

    @staticmethod
    def write(folder: Path, vectors: Float32s, hashes: pl.Series) -> None:
        """Write them into an existing folder."""
        np.save(folder / VECTORS, vectors)
        write_hashes(folder, hashes)


def read_hashes(folder: Path) -> pl.Series:
    """[T] content hash of each text.

    Raises:
        DataError: the file is missing or broken.
    """
    kinds = {Col.content_hash: pl.String}
    return read_parquet(folder / HASHES, _FIX, kinds, only=True)[Col.content_hash]


def write_hashes(folder: Path, hashes: pl.Series) -> None:
    """Write what `read_hashes` reads."""
    hashes.alias(Col.content_hash).to_frame().write_parquet(folder / HASHES)


def rows_among(hashes: pl.Series, known: pl.Series | None) -> Int64s:
    """[T] row of each text among known ones, by content hash; -1 where it is new."""
    if known is None:
        return np.full(len(hashes), -1, dtype=np.int64)
    name = Col.content_hash
    rows = known.alias(name).to_frame().with_row_index("row").unique(name, keep="first")
    ours = hashes.alias(name).to_frame()
    found = ours.join(rows, on=name, how="left", maintain_order="left")["row"]
    return found.cast(pl.Int64).fill_null(-1).to_numpy()
