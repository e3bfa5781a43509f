"""The second pass over a log: each bucket becomes a shard of histories, all of them relations."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.config import Recipe, target_codes
from recsys.data.catalogue import ITEMS_FILE
from recsys.data.checks import drop_crowded_users, with_unreadable
from recsys.data.feedback import without_logged
from recsys.data.histories import UserEvents, build_histories
from recsys.data.time_split import ask
from recsys.features.item_to_item import FILES, count_relations
from recsys.features.popularity import count_days, count_items
from recsys.preparation.prepared import (
    BUCKETS_DIR,
    CATALOGUE_DIR,
    COUNTS_DIR,
    DAYS_DIR,
    HISTORIES_DIR,
    QUARANTINE_DIR,
    RELATIONS_DIR,
    WINDOWS,
    cut_us,
)
from recsys.preparation.split import LIVE
from recsys.schema import EVENTS, HISTORIES, Col
from recsys.storage.matrices import save_matrix


@dataclass(frozen=True)
class Build:
    """One bucket -> a shard of histories, item counts as of each cut, baskets in each window."""

    recipe: Recipe
    out: Path
    end_us: int

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Build the bucket that a row names; returns its counts."""
        number = row["bucket"]
        files = [self.out / BUCKETS_DIR / name for name in sorted(row["files"])]
        result = {"order": row["order"], "users": 0, "events": 0, "duplicates": 0}
        result |= {f"{window}_baskets": 0 for window in WINDOWS}
        result |= {"learnable": 0, "sha256": "", "shard": ""}
        if not files:
            return result
        events = pl.concat([pl.read_parquet(path, glob=False) for path in files])
        known = without_logged(events, LIVE)
        result["duplicates"] = events.height - known.height
        kept, crowded = drop_crowded_users(known, self.recipe.data.max_events_per_user)
        if crowded.height:
            crowded = with_unreadable(crowded.select(*EVENTS.names, Col.reason))
            crowded = crowded.with_columns(pl.lit("the whole log").alias(Col.source))
            crowded.write_parquet(self.out / QUARANTINE_DIR / f"users-{number:05d}.parquet")
        once = kept.unique([Col.user, Col.item, Col.event_type, Col.timestamp, Col.session])
        if once.is_empty():
            return result
        table = build_histories(once)
        path = self.out / HISTORIES_DIR / f"bucket-{number:05d}.parquet"
        pq.write_table(table, path, compression="zstd", write_page_checksum=True)
        users = UserEvents.from_arrow(table)
        codes = target_codes(self.recipe)
        cuts = cut_us(self.recipe.data.cuts)
        for name, moment in cuts.items():
            as_of = self.end_us if moment is None else moment
            counts = count_items(users, as_of, codes).with_columns(pl.lit(name).alias("as_of"))
            counts.write_parquet(self.out / COUNTS_DIR / f"{number:05d}-{name}.parquet")
        count_days(users, codes).write_parquet(self.out / DAYS_DIR / f"{number:05d}.parquet")
        for window, (start, end) in WINDOWS.items():
            asked = ask(users, start=cuts[start] or 0, end=cuts[end], target_codes=codes)
            result[f"{window}_baskets"] = len(asked)
        learned = ask(users.before(cuts["head"] or 0), start=0, end=None, target_codes=codes)
        result["learnable"] = int((learned.stops > learned.starts).sum())
        result |= {
            "users": len(users),
            "events": once.height,
            "duplicates": result["duplicates"] + kept.height - once.height,
        }
        result |= {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "shard": path.name}
        return result


@dataclass(frozen=True)
class Relate:
    """All histories -> item-to-item relations as of one cut."""

    recipe: Recipe
    out: Path
    shards: list[str]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Count the relations as of the cut that a row names."""
        tables = [HISTORIES.empty_table(), *(pq.read_table(path) for path in self.shards)]
        users = UserEvents.from_arrow(pa.concat_tables(tables))
        cut = cut_us(self.recipe.data.cuts)[row["as_of"]]
        items = pq.read_metadata(self.out / CATALOGUE_DIR / ITEMS_FILE).num_rows
        known = users if cut is None else users.before(cut)
        folder = self.out / RELATIONS_DIR / row["as_of"]
        folder.mkdir(parents=True)
        for name, matrix in count_relations(known, items, target_codes(self.recipe)).items():
            save_matrix(folder, FILES[name], matrix)
        return row
