"""The second pass over a log: each bucket becomes a shard of histories, counts and item pairs.

Where a bucket was built before and rows were only added, the users with new rows take their own
place: with later rows behind what they had (see `appended`), or built anew. The bytes are those of
a bucket that is built from all its rows.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.config import Recipe, target_codes
from recsys.data.histories import US_PER_DAY, UserEvents
from recsys.data.time_split import ask
from recsys.features.item_to_item import relation_situations
from recsys.features.popularity import count_days, count_items
from recsys.preparation.appended import Changed, appended, going_on
from recsys.preparation.kept import Kept
from recsys.preparation.prepared import WINDOWS, cut_us
from recsys.preparation.relate import write_pairs
from recsys.preparation.renumber import renumbered
from recsys.preparation.split import ITEM_ROWS_FILE, rows_of
from recsys.preparation.user_rows import (
    UserRows,
    added_files,
    joined_crowded,
    joined_histories,
    rows_of_users,
)
from recsys.schema import RETRACTIONS, Col
from recsys.storage.outputs import place
from recsys.storage.seals import file_sha256, json_sha256

#: Files of a bucket that was built; the last one is there only if users were left out.
SHARD_FILE, DAYS_FILE, CROWDED_FILE = "histories.parquet", "days.parquet", "crowded.parquet"
#: Piece of the rows that items of the catalogue of before have now, see `renumber`.
MOVED, MOVED_FILE = "moved", "moved.npy"
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
        items: key of the item ids and rows among the kept pieces.
        kept: the pieces.
        end_us: the first moment after the log.
    """

    recipe: Recipe
    common: str
    items: str
    kept: Kept
    end_us: int

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Build the bucket that a row names."""
        with self.kept.at_work() as kept:
            kept.make(kept.buckets / row["key"], partial(self._build, row, kept))
        return {"order": row["order"]}

    def key_of(self, number: int, hashes: Sequence[str]) -> str:
        """Key of a bucket: of the rows that it is built from, and the end of the log."""
        return json_sha256([self.common, self.items, number, list(hashes), self.end_us])[:32]

    def _build(self, row: dict[str, Any], kept: Kept, folder: Path) -> dict[str, Any]:
        hashes, files = list(row["hashes"]), [kept.parts / name for name in row["files"]]
        named = {"common": self.common, "number": row["number"], "hashes": hashes,
                "items": self.items}  # fmt: skip
        result = named | dict.fromkeys(_NUMBERS, 0) | {"sha256": "", "pairs": []}
        if not files:
            return result
        item_rows = kept.mapped(kept.items / self.items) / ITEM_ROWS_FILE
        kept.bring([path.parent for path in files], lambda name: name == files[0].name)
        before = json.loads(row["before"])
        is_new = added_files(before["hashes"], hashes) if before and before["users"] else None
        if is_new is not None:
            last = kept.buckets / before["key"]
            kept.bring([last])
            if kept.is_made(last):
                with tempfile.TemporaryDirectory(prefix=".renumbered-", dir=kept.folder) as aside:
                    told: dict[str, Any] | None = before
                    if before["items"] != self.items:
                        moved = np.load(kept.mapped(kept.relating / MOVED) / MOVED_FILE)
                        told = renumbered(before, last, moved, SHARD_FILE, Path(aside))
                        last = Path(aside)
                    if told is not None:
                        return result | self._fold(told, last, files, is_new, item_rows, folder)
        return result | self._build_all(files, item_rows, folder)

    def _build_all(self, files: Sequence[Path], item_rows: Path, folder: Path) -> dict[str, Any]:
        """Build the bucket from all its rows."""
        rows = UserRows.of(
            _with_rows([pl.read_parquet(path, glob=False) for path in files], item_rows),
            self.recipe.data.max_events_per_user,
        )
        _write_crowded(rows.crowded, folder)
        found = {"duplicates": rows.num_duplicates, "events": rows.once.height,
                 "retractions": rows.num_retractions}  # fmt: skip
        table = rows.histories()
        del rows
        return found | self._write(table, folder, None) if len(table) else found

    def _fold(
        self,
        before: dict[str, Any],
        last: Path,
        files: Sequence[Path],
        is_new: Sequence[bool],
        item_rows: Path,
        folder: Path,
    ) -> dict[str, Any]:
        """Build the users with new rows, and take the others from the bucket as it was."""
        most = self.recipe.data.max_events_per_user
        fresh = [pl.read_parquet(path, glob=False)
                 for path, new in zip(files, is_new, strict=True) if new]  # fmt: skip
        # None where the log has become longer elsewhere alone.
        rows = pl.concat(fresh) if fresh else pl.read_parquet(files[0], glob=False).clear()
        touched, shard = rows[Col.user].unique(), pq.read_table(last / SHARD_FILE)
        # A row that repeats another one counts for what a user may have.
        on = going_on(rows, shard, last / CROWDED_FILE, most - before["duplicates"])
        if before["retractions"] or rows[Col.event_type].is_in(RETRACTIONS).any():
            on = on.clear()  # who did nothing but take back has no history to go on
        is_on = pl.col(Col.user).is_in(on.implode())
        late = rows.filter(~is_on)[Col.user].unique()
        theirs = [_rows_of(path, late) for path in files] if late.len() else []
        old = [each for each, new in zip(theirs, is_new, strict=False) if not new]
        none = rows.clear()
        more, was, now = (
            UserRows.of(_with_rows([none, *each], item_rows), most)
            for each in ([rows.filter(is_on)], old, theirs)
        )
        _write_crowded(joined_crowded(last / CROWDED_FILE, touched, now.crowded), folder)
        found = {
            "duplicates": before["duplicates"]
            + more.num_duplicates + now.num_duplicates - was.num_duplicates,
            "events": before["events"] + more.once.height + now.once.height - was.once.height,
            "retractions": before["retractions"] + now.num_retractions - was.num_retractions,
        }  # fmt: skip
        then = UserEvents.from_arrow(rows_of_users(shard, touched))
        longer = appended(then, UserEvents.from_arrow(more.histories()))
        built = pa.concat_tables([longer.to_arrow(), now.histories()])
        table = joined_histories(shard, touched, built)
        if not len(table):
            return found
        first_us = rows.select(pl.col(Col.timestamp).dt.epoch("us").min()).item()
        since = self.end_us if first_us is None else first_us
        if was.crowded.height or now.crowded.height:
            since = 0
        changed = Changed.of(before, last, since, then, built, on)
        return found | self._write(table, folder, changed)

    def _write(self, table: pa.Table, folder: Path, changed: Changed | None) -> dict[str, Any]:
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
            days, numbers = count_days(users, codes).sort("day", Col.item_row), self._numbers(users)
        else:
            days, numbers = self._corrected(changed, codes)
        days.write_parquet(folder / DAYS_FILE)
        early = [moment for moment in cuts.values() if moment is not None]
        found = {"users": len(users), "sha256": file_sha256(path), **numbers}
        return found | {"pairs": _write_parts(users, early, codes, folder, changed)}

    def _numbers(self, users: UserEvents) -> dict[str, int]:
        """Numbers of baskets, which add up over users."""
        codes, cuts = target_codes(self.recipe), cut_us(self.recipe.data.cuts)
        learned = ask(users.before(cuts["head"] or 0), start=0, end=None, target_codes=codes)
        numbers = {"learnable": int((learned.stops > learned.starts).sum())}
        for window, (start, end) in WINDOWS.items():
            asked = ask(users, start=cuts[start] or 0, end=cuts[end], target_codes=codes)
            numbers[f"{window}_baskets"] = len(asked)
        return numbers

    def _corrected(
        self, changed: Changed, codes: Sequence[int]
    ) -> tuple[pl.DataFrame, dict[str, int]]:
        """Daily counts of items and the numbers: of before, less and more those that differ."""
        was, now = (self._numbers(users) for users in changed.parts(changed.is_recent))
        numbers = {name: changed.before[name] - was[name] + now[name] for name in now}
        counts, day = pl.exclude("day", Col.item_row), pl.col("day")
        before = pl.read_parquet(changed.folder / DAYS_FILE, glob=False)
        first = changed.since_us // US_PER_DAY
        # Whether an item is a user's first target of it, all the targets tell.
        is_target = np.isin(changed.users.event_codes, np.asarray(codes))
        counted = changed.parts(changed.is_recent | is_target)
        less, more = (count_days(users, codes) for users in counted)
        differ = pl.concat([before, less.with_columns(-counts), more]).filter(day >= first)
        summed = differ.group_by("day", Col.item_row).agg(counts.sum())
        late = summed.filter(pl.col("events") > 0).sort("day", Col.item_row)
        return pl.concat([before.filter(day < first), late]), numbers


def _rows_of(path: Path, users: pl.Series) -> pl.DataFrame:
    """The rows of a bucket file that are some users'."""
    rows = pl.scan_parquet(path, glob=False)
    return rows.filter(pl.col(Col.user).is_in(users.implode())).collect()


def _with_rows(frames: Sequence[pl.DataFrame], item_rows: Path) -> pl.DataFrame:
    """Rows of bucket files, with those that their items have in the catalogue."""
    events = pl.concat(frames)
    return events.join(rows_of(item_rows, events[Col.item]), on=Col.item, maintain_order="left")


def _write_parts(
    users: UserEvents,
    cuts: Sequence[int],
    codes: Sequence[int],
    folder: Path,
    changed: Changed | None,
) -> list[dict[str, Any]]:
    """Write the pairs of a bucket, or those that come to what was counted of it before."""
    parts = list(changed.before["pairs"]) if changed else []
    if changed is None or len(parts) >= _MOST_PARTS:
        return [write_pairs(folder / "pairs-0", *relation_situations(users, cuts, codes))]
    for part in parts:
        (folder / part["part"]).mkdir()
        for file in (changed.folder / part["part"]).iterdir():
            place(file, folder / part["part"] / file.name)
    if not len(changed.users):
        return parts
    counted = relation_situations(
        changed.users.where(changed.is_recent), cuts, codes, num_removed=changed.num_then
    )
    return [*parts, write_pairs(folder / f"pairs-{len(parts)}", *counted)]


def _write_crowded(crowded: pl.DataFrame, folder: Path) -> None:
    if crowded.height:
        crowded.write_parquet(folder / CROWDED_FILE)
