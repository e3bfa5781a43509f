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
from recsys.data.feedback import Feedback, read_rows
from recsys.data.pseudonyms import pseudonymise
from recsys.errors import DataError
from recsys.preparation.intake import Intake
from recsys.preparation.kept import PREFIX_CHARS, USERS_FILE, Kept
from recsys.schema import EVENTS, Col
from recsys.state import Tombstone
from recsys.storage.seals import file_sha256

#: Column of the bucket files: whether the service took the event in, see `recsys.data.feedback`.
LIVE: Final = "live"
#: Columns of the log that the bucket files hold.
NEEDED: Final = [Col.user, Col.item, Col.event_type, Col.timestamp, Col.session]
ITEM_ROWS_FILE: Final = "items.arrow"
#: Of a part: the distinct items of its rows, and whether the catalogue holds them.
_ITEMS_FILE: Final = "items.parquet"
_KNOWN: Final = "known"
PART_QUARANTINE: Final = "quarantine.parquet"


def bucket_file(number: int) -> str:
    """Name of a bucket's rows in the folder of a part."""
    return f"{number:05d}.parquet"


def write_item_rows(kept: Kept, key: str, items: pl.DataFrame) -> None:
    """Write item ids and rows so that all tasks of a machine map one copy into their memory.

    Args:
        kept: the pieces.
        key: of the piece.
        items: of the catalogue.
    """

    def write(folder: Path) -> dict[str, Any]:
        rows = items.select(Col.item, Col.item_row)
        rows.write_ipc(folder / ITEM_ROWS_FILE, compression="uncompressed")
        return {}

    kept.make(kept.items / key, write)


def rows_of(path: Path, ids: pl.Series) -> pl.DataFrame:
    """The rows of those ids that the catalogue holds, without the memory of all the others."""
    with pa.memory_map(str(path)) as source:
        items = pl.DataFrame(pa.ipc.open_file(source).read_all())
        return ids.drop_nulls().unique().to_frame(Col.item).join(items, on=Col.item)


def live_rows(recipe: Recipe, part: Part, schema: pa.Schema) -> pl.DataFrame:
    """Live events or lists of a part, which lie in a store where the run does.

    Args:
        recipe: of the run.
        part: of a file in the folder of `feedback`.
        schema: see `read_rows`.

    Raises:
        DataError: they are gone.
    """
    store, path = recipe.feedback, Path(part.path)
    if store is None or recipe.shared.location is None:
        return read_rows(part.path, part.first_group, part.last_group, schema)
    name = path.relative_to(Feedback.of(recipe.root).folder).as_posix()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        if not store.download(name, copy):
            raise DataError(
                "what the service took in is gone", where=f"{store}/{name}",
                fix="run the same command again",
            )  # fmt: skip
        return read_rows(str(copy), part.first_group, part.last_group, schema)


def _still_holds(path: Path, item_rows: Path) -> bool:
    """Whether the catalogue knows of a part's items those that it knew, and no others."""
    told = pl.read_parquet(path, glob=False)
    known = rows_of(item_rows, told[Col.item])[Col.item]
    return bool((told[Col.item].is_in(known.implode()) == told[_KNOWN]).all())


@dataclass(frozen=True)
class Split:
    """One part of the raw log, or of the live events -> bucket files and quarantine, kept.

    Attributes:
        recipe: of the run.
        key: of the pseudonyms.
        kept: the pieces.
        items: key of what `write_item_rows` wrote.
        num_buckets: that users fall into.
        now_us: the present.
        erased: tombstones, by pseudonym.
    """

    recipe: Recipe
    key: bytes
    kept: Kept
    items: str
    num_buckets: int
    now_us: int
    erased: dict[str, Tombstone]

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Split the part that a row names, unless it would be split as it is."""
        with self.kept.at_work() as kept:
            item_rows = kept.mapped(kept.items / self.items) / ITEM_ROWS_FILE
            piece = kept.parts / row["key"]
            kept.bring([piece], lambda name: name == _ITEMS_FILE)
            if not (kept.is_made(piece) and _still_holds(piece / _ITEMS_FILE, item_rows)):
                kept.make(piece, partial(self._split, row, item_rows))
        return {"order": row["order"]}

    def _split(self, row: dict[str, Any], item_rows: Path, folder: Path) -> dict[str, Any]:
        data, live = self.recipe.data, row[LIVE]
        part = Part(row["path"], row["first_group"], row["last_group"], row["num_rows"])
        raw = live_rows(self.recipe, part, EVENTS) if live else open_adapter(data).read_events(part)
        items = rows_of(item_rows, raw[Col.item])
        intake = Intake(data, self.key, self.erased, self.now_us)
        taken = intake.take(raw, known_items=items[Col.item], live=live)
        users = taken.ready[Col.user]
        bucket = users.str.slice(0, 8).str.to_integer(base=16, dtype=pl.Int64) % self.num_buckets
        # Session ids are often made of the user's: what is kept between runs holds no raw ones.
        ready = taken.ready.select(NEEDED).with_columns(
            pseudonymise(taken.ready[Col.session], self.key),
            bucket.alias("bucket"),
            pl.lit(live).alias(LIVE),
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
        distinct = raw[Col.item].drop_nulls().unique().sort()
        is_known = distinct.is_in(items[Col.item].implode()).alias(_KNOWN)
        distinct.to_frame(Col.item).with_columns(is_known).write_parquet(folder / _ITEMS_FILE)
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
