"""The first pass over a log: each part is checked, made pseudonymous and split by user."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from recsys.config import Recipe
from recsys.data.adapters import Part, open_adapter
from recsys.data.catalogue import ITEMS_FILE
from recsys.data.feedback import read_events
from recsys.data.pseudonyms import pseudonymise
from recsys.preparation.intake import Intake
from recsys.preparation.prepared import BUCKETS_DIR, CATALOGUE_DIR, QUARANTINE_DIR
from recsys.schema import Col
from recsys.state import Tombstone

#: Column of the bucket files: whether the service took the event in, see `recsys.data.feedback`.
LIVE = "live"


@lru_cache(maxsize=2)
def _item_rows(path: Path, run_us: int) -> pl.DataFrame:
    """Item id -> row; read once a worker process and run."""
    return pl.read_parquet(path, columns=[Col.item, Col.item_row], glob=False)


@dataclass(frozen=True)
class Split:
    """One part of the raw log, or of the live events -> bucket files and quarantine."""

    recipe: Recipe
    key: bytes
    out: Path
    now_us: int
    erased: dict[str, Tombstone]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Split the part that a row names; returns its counts."""
        data, live = self.recipe.data, row[LIVE]
        part = Part(row["path"], row["first_group"], row["last_group"], row["num_rows"])
        raw = (
            read_events(part.path, part.first_group, part.last_group)
            if live
            else open_adapter(data).read_events(part)
        )
        items = _item_rows(self.out / CATALOGUE_DIR / ITEMS_FILE, self.now_us)
        intake = Intake(data, self.key, self.erased, self.now_us)
        taken = intake.take(raw, known_items=items[Col.item], live=live)
        users = taken.ready[Col.user]
        bucket = users.str.slice(0, 8).str.to_integer(base=16, dtype=pl.Int64) % data.num_buckets
        ready = taken.ready.with_columns(bucket.alias("bucket"), pl.lit(live).alias(LIVE)).join(
            items, on=Col.item
        )
        buckets = ready.partition_by("bucket", as_dict=True)
        for (number,), frame in buckets.items():
            folder = self.out / BUCKETS_DIR / f"{number:05d}"
            folder.mkdir(exist_ok=True)
            frame.drop("bucket").write_parquet(folder / f"{row['number']:05d}.parquet")
        quarantine = taken.bad.with_columns(
            pl.lit(part.path).alias(Col.source),
            # Session and request ids are often made of the user's, and a context may hold anything.
            *(
                pseudonymise(taken.bad[name], self.key).alias(name)
                for name in (Col.session, Col.request)
            ),
            pl.lit(None, pl.String).alias(Col.context),
        )
        quarantine.write_parquet(self.out / QUARANTINE_DIR / f"part-{row['number']:05d}.parquet")
        latest = (
            ready.select(pl.col(Col.timestamp).dt.epoch("us").max()).item() if ready.height else 0
        )
        return {
            "order": row["order"],
            "rows": raw.height,
            "left_out": taken.num_left_out,
            "erased": taken.num_erased,
            "live": raw.height if live else 0,
            "buckets": sorted(int(number) for (number,) in buckets),
            "latest_us": latest,
            "coverage": taken.coverage.to_json(),
            "spelled": json.dumps({name: asdict(each) for name, each in taken.spelled.items()}),
        }
