"""The output of `prepare`, as it is read: catalogue, histories, item statistics, questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from recsys.arrays import Int64s, Strings
from recsys.config import Cuts, Data, Recipe
from recsys.data.catalogue import ITEMS_FILE, Catalogue
from recsys.data.checks import reasons
from recsys.data.histories import UserEvents
from recsys.data.pseudonyms import has_key, key_path
from recsys.data.time_split import Questions, ask
from recsys.errors import DataError, RecipeError
from recsys.features.item_to_item import FILES, Relations
from recsys.features.popularity import DailyCounts, ItemStats
from recsys.preparation.shards import read_shard
from recsys.schema import HISTORIES, Col
from recsys.storage.matrices import open_matrix
from recsys.storage.reading import read_json, read_parquet, reading
from recsys.text.pretrained import fingerprint, locate

PREPARED = "prepared"
HISTORIES_DIR, CATALOGUE_DIR, QUARANTINE_DIR = "histories", "catalogue", "quarantine"
RELATIONS_DIR = "relations"
#: What trainings compute from the data and share; a preparation takes it away with the data.
QUESTIONS_DIR = "questions"
STATS_FILE, DAYS_FILE, SUMMARY_FILE = "item_stats.parquet", "item_days.parquet", "prepare.json"

_FIX = "run `recsys prepare` again"
_FINGERPRINTS = ("data_fingerprint", "catalogue_fingerprint", "key_check", "language_model")


def lost_key(recipe: Recipe) -> DataError | None:
    """What is wrong where a run that was prepared under a key has none any more."""
    folder, privacy = recipe.root / PREPARED, recipe.privacy
    if has_key(privacy, recipe.root):
        return None
    if (location := recipe.shared.location) is not None:
        return DataError(
            "a run in a store has no folder of its own for the pseudonym key", where=location,
            field="privacy.key_file", fix=f"set {privacy.key_env}, or name a file that all nodes "
            "have: 32 random bytes in hex, say",
        )  # fmt: skip
    if not (folder / SUMMARY_FILE).is_file():
        return None
    return DataError(
        "the pseudonym key of this run is gone; under a new one nobody would be known who is in "
        "its bundles, the service's store or its feedback",
        where=key_path(recipe.privacy, recipe.root),
        fix=f"restore the file, or set {recipe.privacy.key_env}; to begin anew, set another name "
        "or run_dir",
    )


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
            raise DataError("no prepared data", where=folder, fix="run `recsys prepare` first")
        return Prepared(folder)

    @staticmethod
    def of(recipe: Recipe) -> Prepared:
        """The prepared data of a recipe's run.

        Raises:
            DataError: there are none, or they were not prepared under this recipe, see `check`.
        """
        prepared = Prepared.open(recipe.root)
        prepared.check(recipe)
        return prepared

    def check(self, recipe: Recipe) -> None:
        """Refuse a recipe that these data were not prepared under.

        Raises:
            DataError: statistics, cuts or tokens would not be what the recipe says.
        """
        # What the release that prepared them had no key for was done as the key's default does it.
        usual = Data.model_construct(cuts=recipe.data.cuts).model_dump(mode="json")
        then, now = usual | self.summary["recipe"]["data"], recipe.resolved()["data"]
        changed = sorted(key for key in now if then.get(key) != now[key])
        if changed:
            raise DataError(
                f"prepared under another recipe (`data.{changed[0]}` was {then.get(changed[0])!r})",
                where=self.folder, field=f"data.{changed[0]}", value=now[changed[0]],
                fix="run `recsys prepare` again",
            )  # fmt: skip
        language = recipe.model.language_model
        if self.summary["language_model"] != fingerprint(locate(language)):
            raise DataError(
                "the texts were split into tokens for another language model",
                where=self.folder, field="model.language_model", value=language,
                fix="run `recsys prepare` again",
            )  # fmt: skip

    @cached_property
    def summary(self) -> dict[str, Any]:
        """`prepare.json`: recipe, fingerprint, counts, cuts.

        Raises:
            DataError: it is broken.
        """
        path = self.folder / SUMMARY_FILE
        kinds = {"recipe": dict, "cuts_us": dict, "counts": dict, "quarantined": dict}
        summary = read_json(path, _FIX, kinds | dict.fromkeys(_FINGERPRINTS, str))
        with reading(path, _FIX):
            cuts, counts = summary["cuts_us"], summary["counts"]
            moments = [cuts[name] for name in ("head", "valid", "test")]
            if not isinstance(summary["recipe"]["data"], dict):
                raise ValueError("no recipe")
            numbers = [*moments, *([] if cuts["end"] is None else [cuts["end"]])]
            numbers += [
                counts[name] for name in ("items", "users", *(f"{w}_baskets" for w in WINDOWS))
            ]
            if any(type(number) is not int or number < 0 for number in numbers):
                raise ValueError("cuts or counts that are no whole numbers")
            if numbers[: len(moments)] != sorted(moments):
                raise ValueError("cuts that are not in order")
        return summary

    @cached_property
    def catalogue(self) -> Catalogue:
        """The items and their distinct texts."""
        catalogue = Catalogue.load(self.folder / CATALOGUE_DIR)
        if catalogue.num_items != self.summary["counts"]["items"]:
            raise DataError(
                f"{catalogue.num_items} items, of {self.summary['counts']['items']} prepared",
                where=self.folder / CATALOGUE_DIR / ITEMS_FILE, fix=_FIX,
            )  # fmt: skip
        return catalogue

    def item_ids(self) -> Strings:
        """[I] ids by row, without reading the texts."""
        path = self.folder / CATALOGUE_DIR / ITEMS_FILE
        return read_parquet(path, _FIX, {Col.item: pl.String}, only=True)[Col.item].to_numpy()

    @cached_property
    def shards(self) -> list[Path]:
        """The history shards, in a fixed order.

        Raises:
            DataError: one is missing, broken or another's: they do not hold as many users as were
                prepared.
        """
        folder, users = self.folder / HISTORIES_DIR, 0
        found = sorted(folder.glob("*.parquet"))
        for path in found:
            with reading(path, _FIX):
                users += pq.read_metadata(path).num_rows
        if users != self.summary["counts"]["users"]:
            raise DataError(
                f"{users} users, of {self.summary['counts']['users']} prepared", where=folder,
                fix=_FIX,
            )  # fmt: skip
        return found

    def check_workers(self, num_workers: int) -> None:
        """Make sure that each training worker has a history shard of its own to read.

        Buckets without users leave no shard, so a log of few users may have fewer than buckets.

        Raises:
            RecipeError: there are fewer shards than workers.
        """
        num_shards, buckets = len(self.shards), self.summary["recipe"]["data"]["num_buckets"]
        if num_shards < num_workers:
            raise RecipeError(
                f"{num_workers} workers cannot share {num_shards} history shards: of "
                f"data.num_buckets ({buckets}), no more hold users", where=self.folder,
                field="train.num_workers", value=num_workers,
                fix=f"set train.num_workers to at most {num_shards}, or raise data.num_buckets "
                "and run `recsys prepare` again",
            )  # fmt: skip

    def users(self, shards: Sequence[Path] | None = None) -> UserEvents:
        """The users of some shards (all by default), in memory.

        Raises:
            DataError: a shard is missing or broken.
        """
        picked = self.shards if shards is None else shards
        tables = [HISTORIES.empty_table(), *(self.shard(path) for path in picked)]
        return UserEvents.from_arrow(pa.concat_tables(tables))

    def shard(self, path: Path) -> pa.Table:
        """The rows of one history shard.

        Raises:
            DataError: it is missing or broken.
        """
        return read_shard(path, self.summary["counts"]["items"])

    def stats(self, as_of: str) -> ItemStats:
        """Item statistics as of a cut: `head`, `valid`, `test` or `end`."""
        path, num_items = self.folder / STATS_FILE, self.summary["counts"]["items"]
        kinds = {field.name: pl.Int64 for field in fields(ItemStats)}
        whole = read_parquet(path, _FIX, {**kinds, Col.item_row: pl.Int32, "as_of": pl.String})
        with reading(path, _FIX):
            if not whole[Col.item_row].is_between(0, num_items - 1).all():
                raise ValueError(f"an item outside rows 0..{num_items - 1}")
            if not all((whole[name] >= 0).all() for name in kinds):
                raise ValueError("counts below 0")
        frame = whole.filter(pl.col("as_of") == as_of)
        rows = frame[Col.item_row].to_numpy()

        def spread(name: str) -> Int64s:
            out = np.zeros(num_items, dtype=np.int64)
            out[rows] = frame[name].to_numpy()
            return out

        return ItemStats(*(spread(field.name) for field in fields(ItemStats)))

    def daily_counts(self) -> DailyCounts:
        """Item counts of every day of the log, from which statistics as of any night follow."""
        return DailyCounts.load(self.folder / DAYS_FILE, self.summary["counts"]["items"])

    def relations(self, as_of: str, content_similarity: sparse.csr_array) -> Relations:
        """Item-to-item weights, those that are counted as of a cut; memory-mapped.

        Args:
            as_of: `head`, `valid`, `test` or `end`.
            content_similarity: of the text store.
        """
        folder = self.folder / RELATIONS_DIR / as_of
        found = {
            name: open_matrix(folder, FILES[name], _FIX)
            for name in ("transitions", "co_occurrence")
        }
        found["content_similarity"] = content_similarity
        num_items = self.summary["counts"]["items"]
        for name, matrix in found.items():
            if matrix.shape[0] != num_items:
                raise DataError(
                    f"{matrix.shape[0]} rows of `{name}` for {num_items} items", where=folder,
                    fix=_FIX,
                )  # fmt: skip
        return Relations(**found)

    def quarantined_items(self) -> dict[str, int]:
        """Rows of the items table in quarantine, by reason."""
        path = self.folder / QUARANTINE_DIR / ITEMS_FILE
        return reasons([read_parquet(path, _FIX, {Col.reason: pl.String})])

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

        Of a sample the memory holds one shard at a time, and the sample's users.

        Args:
            window: `head`, `valid` or `test`.
            target_codes: event codes of a relevant item.
            shards: history shards to read; all by default.
            most: about as many in all; a sample by (user, basket), the same however shards are
                shared out.
            seed: of the sample.

        Returns:
            The users, of a sample its own alone, and the questions in the order of time, which
            index into them.
        """
        start, end = self.window(window)
        total = self.summary["counts"][f"{window}_baskets"]

        def asked(users: UserEvents) -> Questions:
            questions = ask(users, start=start, end=end, target_codes=target_codes)
            if most is None or most >= total:
                return questions
            ids = pl.Series(users.user_ids, dtype=pl.String).gather(questions.user_index)
            keys = pl.DataFrame({"user": ids, "basket": questions.baskets})
            drawn = keys.hash_rows(seed=seed).to_numpy() < np.uint64(most / total * 2**64)
            return questions.where(drawn)

        if most is None or most >= total:
            users = self.users(shards)
        else:
            tables = [HISTORIES.empty_table()]
            for path in self.shards if shards is None else shards:
                table = self.shard(path)
                here = np.unique(asked(UserEvents.from_arrow(table)).user_index)
                tables.append(table.take(pa.array(here)))
            users = UserEvents.from_arrow(pa.concat_tables(tables))
        return users, asked(users).by_time()
