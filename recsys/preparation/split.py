"""The first pass over a log: each part is checked, made pseudonymous and split by user."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa

from recsys.config import Recipe
from recsys.data.adapters import Part, open_adapter
from recsys.data.feedback import Feedback, read_events
from recsys.data.pseudonyms import pseudonymise
from recsys.errors import DataError
from recsys.preparation.intake import Intake
from recsys.preparation.kept import PREFIX_CHARS, USERS_FILE, Kept
from recsys.schema import Col
from recsys.state import Tombstone
from recsys.storage.seals import file_sha256

#: Column of the bucket files: whether the service took the event in, see `recsys.data.feedback`.
LIVE: Final = "live"
#: Columns of the log that the bucket files hold.
NEEDED: Final = [Col.user, Col.item, Col.event_type, Col.timestamp, Col.session]
#: Piece of the item ids and rows.
ITEM_ROWS: Final = "items"
_ITEM_ROWS_FILE: Final = "items.arrow"
PART_QUARANTINE: Final = "quarantine.parquet"


def bucket_file(number: int) -> str:
    """Name of a bucket's rows in the folder of a part."""
    return f"{number:05d}.parquet"


def write_item_rows(kept: Kept, items: pl.DataFrame) -> None:
    """Write item ids and rows so that all tasks of a machine map one copy into their memory."""

    def write(folder: Path) -> dict[str, Any]:
        rows = items.select(Col.item, Col.item_row)
        rows.write_ipc(folder / _ITEM_ROWS_FILE, compression="uncompressed")
        return {}

    kept.make(kept.relating / ITEM_ROWS, write)


def rows_of(path: Path, ids: pl.Series) -> pl.DataFrame:
    """The rows of those ids that the catalogue holds, without the memory of all the others."""
    with pa.memory_map(str(path)) as source:
        items = pl.DataFrame(pa.ipc.open_file(source).read_all())
        return ids.drop_nulls().unique().to_frame(Col.item).join(items, on=Col.item)


@dataclass(frozen=True)
class Split:
    """One part of the raw log, or of the live events -> bucket files and quarantine, kept.

    Attributes:
        recipe: of the run.
        key: of the pseudonyms.
        kept: the pieces, with what `write_item_rows` wrote.
        num_buckets: that users fall into.
        now_us: the present.
        erased: tombstones, by pseudonym.
    """

    recipe: Recipe
    key: bytes
    kept: Kept
    num_buckets: int
    now_us: int
    erased: dict[str, Tombstone]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Split the part that a row names."""
        with self.kept.at_work() as kept:
            item_rows = kept.mapped(kept.relating / ITEM_ROWS) / _ITEM_ROWS_FILE
            kept.make(kept.parts / row["key"], partial(self._split, row, item_rows))
        return {"order": row["order"]}

    def _live(self, part: Part) -> pl.DataFrame:
        """Live events, which lie in a store where the run does."""
        store, path = self.recipe.feedback, Path(part.path)
        if store is None or self.recipe.shared.location is None:
            return read_events(part.path, part.first_group, part.last_group)
        name = path.relative_to(Feedback.of(self.recipe.root).folder).as_posix()
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, path.name)
            if not store.download(name, copy):
                raise DataError(
                    "live events are gone", where=f"{store}/{name}",
                    fix="run `recsys prepare` again",
                )  # fmt: skip
            return read_events(str(copy), part.first_group, part.last_group)

    def _split(self, row: dict[str, Any], item_rows: Path, folder: Path) -> dict[str, Any]:
        data, live = self.recipe.data, row[LIVE]
        part = Part(row["path"], row["first_group"], row["last_group"], row["num_rows"])
        raw = self._live(part) if live else open_adapter(data).read_events(part)
        items = rows_of(item_rows, raw[Col.item])
        intake = Intake(data, self.key, self.erased, self.now_us)
        taken = intake.take(raw, known_items=items[Col.item], live=live)
        users = taken.ready[Col.user]
        bucket = users.str.slice(0, 8).str.to_integer(base=16, dtype=pl.Int64) % self.num_buckets
        # Session ids are often made of the user's: what is kept between runs holds no raw ones.
        ready = (
            taken.ready.select(NEEDED)
            .with_columns(
                pseudonymise(taken.ready[Col.session], self.key),
                bucket.alias("bucket"),
                pl.lit(live).alias(LIVE),
            )
            .join(items, on=Col.item, maintain_order="left")
        )
        buckets = ready.partition_by("bucket", as_dict=True)
        for (number,), frame in buckets.items():
            frame.drop("bucket").write_parquet(folder / bucket_file(int(number)))
        quarantine = taken.bad.with_columns(
            pl.lit(part.path).alias(Col.source),
            # Session and request ids are often made of the user's, and a context may hold anything.
            *(
                pseudonymise(taken.bad[name], self.key).alias(name)
                for name in (Col.session, Col.request)
            ),
            pl.lit(None, pl.String).alias(Col.context),
        )
        quarantine.write_parquet(folder / PART_QUARANTINE)
        told = taken.users.str.slice(0, PREFIX_CHARS).unique().sort().to_frame()
        told.write_parquet(folder / USERS_FILE)
        future = taken.bad.filter(pl.col(Col.reason) == "future_timestamp")[Col.timestamp]
        latest = (
            ready.select(pl.col(Col.timestamp).dt.epoch("us").max()).item() if ready.height else 0
        )
        return {
            "rows": raw.height,
            "left_out": taken.num_left_out,
            "erased": taken.num_erased,
            "live": raw.height if live else 0,
            "buckets": {
                int(number): file_sha256(folder / bucket_file(int(number)))
                for (number,) in sorted(buckets)
            },
            "latest_us": latest,
            "future_us": future.dt.epoch("us").min(),
            "coverage": taken.coverage.to_json(),
            "spelled": json.dumps({name: asdict(each) for name, each in taken.spelled.items()}),
        }
