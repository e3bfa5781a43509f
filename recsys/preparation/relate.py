"""Relations of all users, by a second shuffle through storage.

Each bucket writes the pairs of items that its users' situations count, sorted by the left item. The
parts are added up by ranges of left items, so nothing here grows with the log: a range holds about
`PAIRS_AT_ONCE` pairs of all parts together.

    {part}/{relation}-pairs.parquet             pairs of a part of the users, see `pair_blocks`
    {part}/{relation}-sums.parquet              its sums over situations, see `sums_of`
    relating/{relation}/{cut}-{column}.npy      the sums of all buckets as of a cut
    relating/{relation}-{low}/{cut}.parquet     strongest pairs of a range of left items
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.arrays import Int64s
from recsys.features.item_to_item import COUNTED as COUNTED_RELATIONS
from recsys.features.item_to_item import (
    FILES,
    NUM_KEPT,
    TRANSITIONS_SHRINKAGE,
    WINDOWS_SHRINKAGE,
    co_occurrence_weights,
    transition_weights,
)
from recsys.features.neighbours import PAIRS_AT_ONCE
from recsys.features.pair_counts import (
    COUNTED,
    LEFT,
    ON_LEFT,
    ON_RIGHT,
    RIGHT,
    SINCE,
    CutWeights,
    pair_blocks,
    strongest_of,
    sums_of,
)
from recsys.features.situations import Situations
from recsys.preparation.kept import FORMAT as KEPT_FORMAT
from recsys.preparation.kept import Kept
from recsys.preparation.prepared import WINDOWS
from recsys.schema import Col
from recsys.storage.matrices import write_matrix
from recsys.storage.seals import file_hashes, json_sha256

#: The cuts as of which relations are counted, in the order of time.
CUTS: Final = tuple(dict.fromkeys(cut for window in WINDOWS.values() for cut in window))
_ROWS_AT_ONCE: Final = 65_536
_PLACE: Final = "place"


def write_pairs(folder: Path, situations: dict[str, Situations], items: Int64s) -> dict[str, Any]:
    """Write what a part's situations count; for the arguments see `relation_situations`.

    Returns:
        The part's name, its hash, and the number of the first cut that it makes a difference to.
    """
    folder.mkdir()
    since = len(CUTS)
    for name, each in situations.items():
        sums = sums_of(each, items, len(CUTS))
        sums.write_parquet(folder / _sums_file(name))
        since = min([since, *sums[SINCE].unique()])
        path, writer = folder / _pairs_file(name), None
        try:
            for block in pair_blocks(each, items, len(CUTS)):
                since = min([since, *block[SINCE].unique()])
                table = block.to_arrow()
                writer = writer or pq.ParquetWriter(
                    path,
                    table.schema,
                    compression="lz4",
                    use_dictionary=False,
                    write_page_checksum=True,
                )
                writer.write_table(table, row_group_size=_ROWS_AT_ONCE)
        finally:
            if writer:
                writer.close()
    return {"part": folder.name, "sha256": json_sha256(file_hashes(folder)), "since": since}


def matrix_keys(parts: Sequence[Mapping[str, Any]], num_items: int) -> dict[tuple[str, str], str]:
    """Key of each relation as of each cut: a hash of the parts that make a difference to it.

    Args:
        parts: of all buckets, as `write_pairs` tells them.
        num_items: of the catalogue.
    """
    return {
        (name, cut): json_sha256(
            [KEPT_FORMAT, name, cut, num_items,
             sorted(each["sha256"] for each in parts if each["since"] <= number)]
        )[:32]
        for name in COUNTED_RELATIONS
        for number, cut in enumerate(CUTS)
    }  # fmt: skip


@dataclass(frozen=True)
class AddSums:
    """The sums of all parts, for one relation and all cuts; ranges of left items.

    Attributes:
        kept: the pieces.
        parts: of the buckets: key and name of each.
        num_items: of the catalogue.
    """

    kept: Kept
    parts: list[tuple[str, str]]
    num_items: int

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Add up the relation that a row names, as of its cuts; returns the ranges' bounds."""
        with self.kept.at_work() as kept:
            piece = kept.relating / row["relation"]
            kept.make(piece, partial(self._add, row, kept))
            return {**row, "bounds": kept.read_result(piece)["bounds"]}

    def _add(self, row: dict[str, Any], kept: Kept, folder: Path) -> dict[str, Any]:
        name = row["relation"]
        of_cuts = {name: np.zeros((len(CUTS), self.num_items), dtype=np.int32) for name in _SUMS}
        for key, part in self.parts:
            found = kept.read(kept.buckets / key, f"{part}/{_sums_file(name)}", _whole)
            place = found[SINCE].to_numpy(), found[Col.item_row].to_numpy()
            for column, counts in of_cuts.items():
                counts[place] += found[column].to_numpy().astype(np.int32)
        sums = {column: np.zeros(self.num_items, dtype=np.int64) for column in _SUMS}
        for number, cut in enumerate(CUTS):
            for column, total in sums.items():
                total += of_cuts[column][number]
            if cut not in row["cuts"]:
                continue
            for column in (ON_LEFT, ON_RIGHT):
                np.save(folder / _sums_of(cut, column), sums[column].astype(np.float32))
            order = np.empty(self.num_items, dtype=np.int32)
            order[np.argsort(-sums[COUNTED], kind="stable")] = np.arange(self.num_items)
            np.save(folder / _sums_of(cut, _PLACE), order)
        sizes = np.zeros(self.num_items, dtype=np.int64)
        for key, part in self.parts:
            file = f"{part}/{_pairs_file(name)}"
            sizes += kept.read(kept.buckets / key, file, partial(_num_lefts, self.num_items))
        blocks = np.cumsum(sizes + len(self.parts)) // PAIRS_AT_ONCE
        inner = np.flatnonzero(np.diff(blocks)) + 1
        return {"bounds": [0, *inner.tolist(), self.num_items]}


def _num_lefts(num_items: int, source: Any) -> Int64s:
    """[I] pairs of each left item."""
    sizes = np.zeros(num_items, dtype=np.int64)
    with pq.ParquetFile(source) as file:
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[LEFT]):
            left, counts = np.unique(batch[LEFT].to_numpy(), return_counts=True)
            sizes[left] += counts
    return sizes


def _whole(source: Any) -> pa.Table:
    return pq.read_table(source, page_checksum_verification=True)


def _rows(source: Any, which: pc.Expression) -> pa.Table:
    return pq.read_table(source, filters=which, page_checksum_verification=True)


_SUMS: Final = (ON_LEFT, ON_RIGHT, COUNTED)


@dataclass(frozen=True)
class KeepStrongest:
    """One range of left items -> the strongest pairs of a relation as of each cut."""

    kept: Kept
    parts: list[tuple[str, str]]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Add up the pairs of the range and the relation that a row names."""
        with self.kept.at_work() as kept:
            piece = kept.relating / _range_of(row["relation"], row["low"])
            kept.make(piece, partial(self._strongest, row, kept))
        return row

    def _strongest(self, row: dict[str, Any], kept: Kept, folder: Path) -> dict[str, Any]:
        name, low, high = row["relation"], row["low"], row["high"]
        rows = (pc.field(LEFT) >= low) & (pc.field(LEFT) < high)
        pairs = [
            kept.read(kept.buckets / key, f"{part}/{_pairs_file(name)}", partial(_rows, which=rows))
            for key, part in self.parts
        ]
        weights = self._weights(kept.mapped(kept.relating / name), name, row["cuts"])
        frames = [pl.DataFrame(each) for each in pairs]
        found = strongest_of(frames, range(low, high), weights, NUM_KEPT)
        for cut, strongest in zip(CUTS, found, strict=True):
            if strongest is not None:
                strongest.write_parquet(folder / _cut_file(cut))
        return {}

    def _weights(
        self, folder: Path, name: str, cuts: Collection[str]
    ) -> Iterator[CutWeights | None]:
        """How the relation is weighed as of each cut, one at a time in memory."""
        for cut in CUTS:
            if cut not in cuts:
                yield None
                continue
            left, right, place = (
                np.load(folder / _sums_of(cut, column), mmap_mode="r")
                for column in (ON_LEFT, ON_RIGHT, _PLACE)
            )
            weigh = (
                transition_weights(left, TRANSITIONS_SHRINKAGE)
                if name == "transitions"
                else co_occurrence_weights(left, right, WINDOWS_SHRINKAGE)
            )
            yield CutWeights(weigh, place)


@dataclass(frozen=True)
class JoinRanges:
    """The strongest pairs of all ranges -> one matrix, for one relation and one cut.

    Attributes:
        kept: the pieces.
        num_items: of the catalogue.
    """

    kept: Kept
    num_items: int

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Join the ranges of the relation and the cut that a row names."""
        with self.kept.at_work() as kept:
            kept.make(kept.matrices / row["key"], partial(self._join, row, kept))
        return {"order": row["order"]}

    def _join(self, row: dict[str, Any], kept: Kept, target: Path) -> dict[str, Any]:
        ranges = [kept.relating / _range_of(row["relation"], low) for low in row["lows"]]
        name = _cut_file(row["cut"])
        kept.bring(ranges, lambda each: each == name)
        parts = [folder / name for folder in ranges]
        read = ((each[LEFT], each[RIGHT], each["weight"]) for each in map(pq.read_table, parts))
        pairs = (tuple(column.to_numpy() for column in columns) for columns in read)
        num_pairs = sum(pq.read_metadata(path).num_rows for path in parts)
        write_matrix(target, FILES[row["relation"]], pairs, self.num_items, num_pairs)
        return {"num_pairs": num_pairs}


def _sums_of(cut: str, column: str) -> str:
    return f"{cut}-{column}.npy"


def _range_of(relation: str, low: int) -> str:
    return f"{relation}-{low:010d}"


def _cut_file(cut: str) -> str:
    return f"{cut}.parquet"


def _pairs_file(relation: str) -> str:
    return f"{relation}-pairs.parquet"


def _sums_file(relation: str) -> str:
    return f"{relation}-sums.parquet"
