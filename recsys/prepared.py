"""What `prepare` leaves behind, as it is read: catalogue, histories, item statistics, questions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse

from recsys.catalogue import ITEMS_FILE, Catalogue
from recsys.config import Cuts, Recipe
from recsys.errors import DataError
from recsys.histories import Questions, UserEvents, ask
from recsys.item_stats import DailyCounts, ItemStats
from recsys.language_model import fingerprint, locate
from recsys.relations import Relations, open_matrix
from recsys.schema import HISTORIES, Col

PREPARED = "prepared"
HISTORIES_DIR, CATALOGUE_DIR, QUARANTINE_DIR = "histories", "catalogue", "quarantine"
RELATIONS_DIR = "relations"
STATS_FILE, DAYS_FILE, SUMMARY_FILE = "item_stats.parquet", "item_days.parquet", "prepare.json"


def cut_us(cuts: Cuts) -> dict[str, int | None]:
    """The moments at which item statistics are taken, in microseconds; `end` is None for "all"."""
    return {
        "head": int(cuts.head_at.timestamp() * 1e6),
        "valid": int(cuts.valid.timestamp() * 1e6),
        "test": int(cuts.test.timestamp() * 1e6),
        "end": None,
    }


#: Window -> the cut it starts at and the cut it ends before.
WINDOWS = {"head": ("head", "valid"), "valid": ("valid", "test"), "test": ("test", "end")}


@dataclass(frozen=True)
class Prepared:
    """The finished output of `prepare` in a folder."""

    folder: Path

    @staticmethod
    def open(run: Path) -> Prepared:
        """The prepared data of a run.

        Raises:
            DataError: `prepare` has not run, or not to its end.
        """
        folder = run / PREPARED
        if not (folder / SUMMARY_FILE).is_file():
            raise DataError("no prepared data", where=folder, mend="run `recsys prepare` first")
        return Prepared(folder)

    @staticmethod
    def of(recipe: Recipe) -> Prepared:
        """The prepared data of a recipe's run.

        Raises:
            DataError: there are none, or they were prepared under other settings: statistics, cuts
                and tokens would not be what the recipe says.
        """
        prepared = Prepared.open(recipe.root)
        then, now = prepared.summary["recipe"]["data"], recipe.resolved()["data"]
        changed = sorted(key for key in now if then.get(key) != now[key])
        if changed:
            raise DataError(
                f"prepared under another recipe (`data.{changed[0]}` was {then.get(changed[0])!r})",
                where=prepared.folder, field=f"data.{changed[0]}", value=now[changed[0]],
                mend="run `recsys prepare` again",
            )  # fmt: skip
        language = recipe.model.language_model
        if prepared.summary["language_model"] != fingerprint(locate(language)):
            raise DataError(
                "the texts were split into tokens for another language model",
                where=prepared.folder, field="model.language_model", value=language,
                mend="run `recsys prepare` again",
            )  # fmt: skip
        return prepared

    @cached_property
    def summary(self) -> dict[str, Any]:
        """`prepare.json`: recipe, fingerprint, counts, cuts."""
        return dict(json.loads((self.folder / SUMMARY_FILE).read_text()))

    @cached_property
    def catalogue(self) -> Catalogue:
        """The items and their distinct texts."""
        return Catalogue.load(self.folder / CATALOGUE_DIR)

    def item_ids(self) -> NDArray[np.str_]:
        """[I] ids by row, without reading the texts."""
        path = self.folder / CATALOGUE_DIR / ITEMS_FILE
        return pl.read_parquet(path, columns=[Col.item], glob=False)[Col.item].to_numpy()

    @property
    def shards(self) -> list[Path]:
        """The history shards, in a fixed order."""
        return sorted((self.folder / HISTORIES_DIR).glob("*.parquet"))

    def users(self, shards: Sequence[Path] | None = None) -> UserEvents:
        """The users of some shards (all by default), in memory."""
        picked = self.shards if shards is None else shards
        tables = [HISTORIES.empty_table(), *(pq.read_table(path) for path in picked)]
        return UserEvents.from_arrow(pa.concat_tables(tables))

    def stats(self, as_of: str) -> ItemStats:
        """Item statistics as of a cut: `head`, `valid`, `test` or `end`."""
        frame = pl.read_parquet(self.folder / STATS_FILE, glob=False).filter(
            pl.col("as_of") == as_of
        )
        num_items = self.summary["counts"]["items"]
        rows = frame[Col.item_row].to_numpy()

        def spread(name: str) -> NDArray[np.int64]:
            out = np.zeros(num_items, dtype=np.int64)
            out[rows] = frame[name].to_numpy()
            return out

        return ItemStats(*(spread(field.name) for field in fields(ItemStats)))

    def daily_counts(self) -> DailyCounts:
        """Item counts of every day of the log, from which statistics as of any night follow."""
        return DailyCounts.load(self.folder / DAYS_FILE, self.summary["counts"]["items"])

    def relations(self, as_of: str, alike: sparse.csr_array) -> Relations:
        """Item-to-item weights, those that are counted as of a cut; memory-mapped.

        Args:
            as_of: `head`, `valid`, `test` or `end`.
            alike: of the text store.
        """
        folder = self.folder / RELATIONS_DIR / as_of
        return Relations(open_matrix(folder, "following"), open_matrix(folder, "together"), alike)

    def window(self, name: str) -> tuple[int, int | None]:
        """Start and end of the window `head`, `valid` or `test`, in microseconds."""
        start, end = (self.summary["cuts_us"][cut] for cut in WINDOWS[name])
        return start, end

    def questions(
        self,
        window: str,
        target_codes: Sequence[int],
        *,
        shards: Sequence[Path] | None = None,
        most: int | None = None,
        seed: int = 0,
    ) -> tuple[UserEvents, Questions]:
        """The baskets of a window with their histories.

        Args:
            window: `head`, `valid` or `test`.
            target_codes: event codes of a relevant item.
            shards: history shards to read; all by default.
            most: about as many in all; a sample by (user, basket), the same however shards are
                shared out.
            seed: of the sample.

        Returns:
            The users read, and the questions in the order of time, which index into them.
        """
        users = self.users(shards)
        start, end = self.window(window)
        questions = ask(users, start=start, end=end, target_codes=target_codes).by_time()
        total = self.summary["counts"][f"{window}_baskets"]
        if most is None or most >= total:
            return users, questions
        keys = pl.DataFrame(
            {
                "user": pl.Series(users.user_ids, dtype=pl.String).gather(questions.user_index),
                "basket": questions.baskets,
            }
        )
        drawn = keys.hash_rows(seed=seed).to_numpy() < np.uint64(most / total * 2**64)
        return users, questions.where(drawn)
