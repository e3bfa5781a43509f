"""The second pass over a log: each bucket becomes a shard of histories, counts and item pairs.

Where a bucket was built before and rows were only added, the users with new rows are built anew
and take their own place; the bytes are those of a bucket that is built from all its rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.config import Recipe, target_codes
from recsys.data.histories import UserEvents
from recsys.data.time_split import ask
from recsys.features.item_to_item import relation_situations
from recsys.features.popularity import count_days, count_items
from recsys.preparation.kept import Kept
from recsys.preparation.prepared import WINDOWS, cut_us
from recsys.preparation.relate import write_pairs
from recsys.preparation.user_rows import UserRows, added_files, joined_crowded, joined_histories
from recsys.schema import Col
from recsys.storage.outputs import place
from recsys.storage.seals import file_sha256, json_sha256

#: Files of a bucket that was built; the last one is there only if users were left out.
SHARD_FILE, DAYS_FILE, CROWDED_FILE = "histories.parquet", "days.parquet", "crowded.parquet"
#: So many times pairs are corrected by those of users with new rows, then they are counted anew.
_MOST_PARTS: Final = 8
_NUMBERS: Final = ("users", "events", "duplicates", "learnable", *(f"{w}_baskets" for w in WINDOWS))


def counts_file(cut: str) -> str:
    """Name of a bucket's item counts as of a cut."""
    return f"counts-{cut}.parquet"


@dataclass(frozen=True)
class Build:
    """One bucket -> a shard of histories, counts of items and of item pairs, baskets by window.

    Attributes:
        recipe: of the run.
        common: hash of what all buckets depend on, see `kept.context`.
        kept: the pieces.
        end_us: the first moment after the log.
    """

    recipe: Recipe
    common: str
    kept: Kept
    end_us: int

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Build the bucket that a row names."""
        with self.kept.at_work() as kept:
            kept.make(kept.buckets / row["key"], partial(self._build, row, kept))
        return {"order": row["order"]}

    def key_of(self, number: int, hashes: Sequence[str]) -> str:
        """Key of a bucket: of the rows that it is built from, and the end of the log."""
        return json_sha256([self.common, number, list(hashes), self.end_us])[:32]

    def _build(self, row: dict[str, Any], kept: Kept, folder: Path) -> dict[str, Any]:
        hashes, files = list(row["hashes"]), [kept.parts / name for name in row["files"]]
        told = {"common": self.common, "number": row["number"], "hashes": hashes}
        result = told | dict.fromkeys(_NUMBERS, 0) | {"sha256": "", "pairs": []}
        if not files:
            return result
        kept.bring([path.parent for path in files], lambda name: name == files[0].name)
        before = json.loads(row["before"])
        is_new = added_files(before["hashes"], hashes) if before and before["users"] else None
        if is_new is not None:
            last = kept.buckets / before["key"]
            kept.bring([last])
            if kept.is_made(last):
                return result | self._fold(before, last, files, is_new, folder)
        return result | self._build_all(files, folder)

    def _build_all(self, files: Sequence[Path], folder: Path) -> dict[str, Any]:
        """Build the bucket from all its rows."""
        rows = UserRows.of(
            pl.concat([pl.read_parquet(path, glob=False) for path in files]),
            self.recipe.data.max_events_per_user,
        )
        _write_crowded(rows.crowded, folder)
        found = {"duplicates": rows.num_duplicates, "events": rows.once.height}
        table = rows.histories()
        del rows
        return found | self._write(table, folder, None) if len(table) else found

    def _fold(
        self,
        before: dict[str, Any],
        last: Path,
        files: Sequence[Path],
        is_new: Sequence[bool],
        folder: Path,
    ) -> dict[str, Any]:
        """Build the users with new rows, and take the others from the bucket as it was."""
        most = self.recipe.data.max_events_per_user
        fresh = [pl.read_parquet(path, glob=False)
                 for path, new in zip(files, is_new, strict=True) if new]  # fmt: skip
        touched = pl.concat(fresh)[Col.user].unique()
        theirs = [
            pl.scan_parquet(path, glob=False)
            .filter(pl.col(Col.user).is_in(touched.implode()))
            .collect()
            for path in files
        ]
        old = [rows.clear() if new else rows for rows, new in zip(theirs, is_new, strict=True)]
        then, now = UserRows.of(pl.concat(old), most), UserRows.of(pl.concat(theirs), most)
        crowded = joined_crowded(last / CROWDED_FILE, touched, now.crowded)
        _write_crowded(crowded, folder)
        found = {
            "duplicates": before["duplicates"] - then.num_duplicates + now.num_duplicates,
            "events": before["events"] - then.once.height + now.once.height,
        }
        table = joined_histories(pq.read_table(last / SHARD_FILE), touched, now.histories())
        if not len(table):
            return found
        since = pl.concat(fresh).select(pl.col(Col.timestamp).dt.epoch("us").min()).item()
        if then.crowded.height or now.crowded.height:
            since = 0
        changed = _Changed(before, last, since, then.histories(), now.histories())
        return found | self._write(table, folder, changed)

    def _write(self, table: pa.Table, folder: Path, changed: _Changed | None) -> dict[str, Any]:
        """Write the shard and what is counted of it; the counts of it."""
        path = folder / SHARD_FILE
        pq.write_table(table, path, compression="zstd", write_page_checksum=True)
        users = UserEvents.from_arrow(table)
        codes, cuts = target_codes(self.recipe), cut_us(self.recipe.data.cuts)
        for name, moment in cuts.items():
            if changed and moment is not None and moment <= changed.since_us:
                place(changed.folder / counts_file(name), folder / counts_file(name))
                continue
            as_of = self.end_us if moment is None else moment
            counts = count_items(users, as_of, codes).with_columns(pl.lit(name).alias("as_of"))
            counts.write_parquet(folder / counts_file(name))
        if changed is None:
            days, numbers = self._counted(users)
        else:
            days, numbers = self._corrected(changed)
        days.sort("day", Col.item_row).write_parquet(folder / DAYS_FILE)
        early = [moment for moment in cuts.values() if moment is not None]
        found = {"users": len(users), "sha256": file_sha256(path), **numbers}
        return found | {"pairs": _write_parts(users, early, codes, folder, changed)}

    def _counted(self, users: UserEvents) -> tuple[pl.DataFrame, dict[str, int]]:
        """What adds up over users: daily counts of items, and numbers of baskets."""
        codes, cuts = target_codes(self.recipe), cut_us(self.recipe.data.cuts)
        learned = ask(users.before(cuts["head"] or 0), start=0, end=None, target_codes=codes)
        numbers = {"learnable": int((learned.stops > learned.starts).sum())}
        for window, (start, end) in WINDOWS.items():
            asked = ask(users, start=cuts[start] or 0, end=cuts[end], target_codes=codes)
            numbers[f"{window}_baskets"] = len(asked)
        return count_days(users, codes), numbers

    def _corrected(self, changed: _Changed) -> tuple[pl.DataFrame, dict[str, int]]:
        """The same, of the bucket as it was and of the users with new rows alone."""
        tables = (changed.then, changed.now)
        then, now = (self._counted(UserEvents.from_arrow(table)) for table in tables)
        counts = pl.exclude("day", Col.item_row)
        before = pl.read_parquet(changed.folder / DAYS_FILE, glob=False)
        days = pl.concat([before, then[0].with_columns(-counts), now[0]])
        days = days.group_by("day", Col.item_row).agg(counts.sum()).filter(pl.col("events") > 0)
        was = changed.before
        return days, {name: was[name] - then[1][name] + now[1][name] for name in now[1]}


@dataclass(frozen=True)
class _Changed:
    """How a bucket differs from what it was.

    Attributes:
        before: the result of it.
        folder: of it.
        since_us: nothing before this moment differs.
        then, now: histories of the users with new rows, as they were and as they are.
    """

    before: dict[str, Any]
    folder: Path
    since_us: int
    then: pa.Table
    now: pa.Table


def _write_parts(
    users: UserEvents,
    cuts: Sequence[int],
    codes: Sequence[int],
    folder: Path,
    changed: _Changed | None,
) -> list[dict[str, Any]]:
    """Write the pairs of a bucket, or those that come to what was counted of it before."""
    parts = list(changed.before["pairs"]) if changed else []
    if changed is None or len(parts) >= _MOST_PARTS:
        return [write_pairs(folder / "pairs-0", *relation_situations(users, cuts, codes))]
    for part in parts:
        (folder / part["part"]).mkdir()
        for file in (changed.folder / part["part"]).iterdir():
            place(file, folder / part["part"] / file.name)
    both = UserEvents.from_arrow(pa.concat_tables([changed.then, changed.now]))
    counted = relation_situations(both, cuts, codes, num_removed=len(changed.then))
    return [*parts, write_pairs(folder / f"pairs-{len(parts)}", *counted)]


def _write_crowded(crowded: pl.DataFrame, folder: Path) -> None:
    if crowded.height:
        crowded.write_parquet(folder / CROWDED_FILE)
