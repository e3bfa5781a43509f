"""A raw log becomes prepared data: the steps, whatever runs their tasks."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pyarrow import fs

from recsys.config import Recipe
from recsys.data.adapters import Part, open_adapter
from recsys.data.adapters.base import Adapter, split_into_parts
from recsys.data.adapters.listing import file_version
from recsys.data.catalogue import (
    ITEMS_FILE,
    TEXTS_FILE,
    Catalogue,
    build_catalogue,
    catalogue_problem,
    check_items,
)
from recsys.data.feedback import Feedback, finished, group_rows
from recsys.data.pseudonyms import key_check, load_key
from recsys.features.item_to_item import COUNTED
from recsys.preparation.build import MOVED, MOVED_FILE, Build
from recsys.preparation.finish import Results, finish
from recsys.preparation.kept import FORMAT, Kept, context, part_key
from recsys.preparation.memory import buckets_of
from recsys.preparation.prepared import (
    CATALOGUE_DIR,
    HISTORIES_DIR,
    PREPARED,
    QUARANTINE_DIR,
    RELATIONS_DIR,
    lost_key,
)
from recsys.preparation.relate import (
    AddSums,
    JoinRanges,
    KeepStrongest,
    matrix_keys,
)
from recsys.preparation.renumber import moved_rows
from recsys.preparation.split import ITEM_ROWS_FILE, LIVE, Split, bucket_file, write_item_rows
from recsys.preparation.stored import kept_of
from recsys.schema import Col
from recsys.storage.outputs import place
from recsys.storage.seals import file_sha256, json_sha256
from recsys.text.pretrained import TOKENIZER, load_tokenizer, locate, tokens_problem

Rows = list[dict[str, Any]]
Task = Callable[[dict[str, Any]], dict[str, Any]]
#: Runs a task on every row, which has its place as `order`; the results in the rows' order.
RunTasks = Callable[[Rows, Task], Rows]


def one_by_one(rows: Rows, task: Task) -> Rows:
    """Run the tasks in this process, one after another."""
    return [task({"order": order, **row}) for order, row in enumerate(rows)]


def prepare(recipe: Recipe, tasks: AbstractContextManager[RunTasks] | None = None) -> Path:
    """Prepare the recipe's log.

    Args:
        recipe: names the log, the cuts, the key, the language model.
        tasks: entered once the log is found to be usable, runs the tasks: on a cluster, say. They
            write files, and their results are small. By default they run here, one by one.

    Returns:
        The folder with the prepared data; whole, or what it was.

    Raises:
        DataError: the log or the catalogue cannot be used.
    """
    adapter = open_adapter(recipe.data)
    scan = adapter.scan()
    if scan.problems:
        raise scan.problems[0]  # a dry run tells them all
    lost = lost_key(recipe)
    if lost:
        raise lost
    key = load_key(recipe.privacy, recipe.root, create=True)
    folder, kept = recipe.root / PREPARED, kept_of(recipe)
    with (
        tasks or nullcontext(one_by_one) as run_tasks,
        kept.locked(),
        recipe.shared.whole(folder) as out,
    ):
        for name in (HISTORIES_DIR, CATALOGUE_DIR, QUARANTINE_DIR):
            (out / name).mkdir()
        items = adapter.read_items()
        catalogue, texts_key = _write_catalogue(recipe, items.table, out, kept)
        steps = _Steps(recipe, key, out, kept, run_tasks)
        split = steps.split(adapter, scan.parts, catalogue)
        built = steps.build(split)
        matrices = steps.relate(built, catalogue.num_items)
        results = Results(catalogue, scan, items.num_superseded, split, built, key_check(key))
        finish(recipe, out, kept, results)
        kept.keep_only(
            [*(row["key"] for row in (*split, *built)), *matrices, texts_key, steps.items_key]
        )
    return folder


def _write_catalogue(
    recipe: Recipe, items: pl.DataFrame, out: Path, kept: Kept
) -> tuple[Catalogue, str]:
    """Check the items and write the catalogue; and the key of its texts among the kept pieces."""
    source = recipe.data.source or recipe.data.adapter
    good, bad = check_items(items, recipe.data.text_fields)
    limit = recipe.data.max_quarantine_fraction
    wrong = catalogue_problem(good, bad, limit, source=source, kept_at="the items table")
    if wrong:
        raise wrong
    bad = bad.with_columns(pl.lit(f"{source} (items)").alias(Col.source))
    bad.write_parquet(out / QUARANTINE_DIR / "items.parquet")
    language = locate(recipe.model.language_model)
    too_long = tokens_problem(language, recipe.data.max_tokens)
    if too_long:
        raise too_long
    tokenizer = load_tokenizer(language, recipe.data.max_tokens)
    key = json_sha256([FORMAT, file_sha256(language / TOKENIZER), recipe.data.max_tokens])[:32]
    piece = kept.texts / key
    kept.bring([piece])
    known = pl.read_parquet(piece / TEXTS_FILE, glob=False) if kept.is_made(piece) else None
    numbered, texts = build_catalogue(good, tokenizer, known)
    numbered.write_parquet(out / CATALOGUE_DIR / ITEMS_FILE)
    texts.write_parquet(out / CATALOGUE_DIR / TEXTS_FILE)
    if known is None or not known.equals(texts):

        def keep(folder: Path) -> dict[str, Any]:
            place(out / CATALOGUE_DIR / TEXTS_FILE, folder / TEXTS_FILE)
            return {}

        kept.make(piece, keep)
    return Catalogue(numbered, texts), key


@dataclass
class _Steps:
    """The steps that tasks do.

    Attributes:
        recipe: of the run.
        key: of the pseudonyms.
        out: folder of the prepared data.
        kept: pieces of the preparation before, which need not be made again.
        run_tasks: runs tasks.
    """

    recipe: Recipe
    key: bytes
    out: Path
    kept: Kept
    run_tasks: RunTasks
    items_key: str = ""

    def split(self, adapter: Adapter, parts: list[Part], catalogue: Catalogue) -> Rows:
        """Bucket the log's parts and the live events, none of them an erased user's."""
        feedback = Feedback.of(self.recipe.root)
        with feedback.locked(exclusive=False):
            erased = feedback.erased()
            self.kept.forget(erased)
            sources = [(part, adapter.version(part.path), False) for part in parts]
            for path in finished(feedback.events):
                version = file_version(fs.LocalFileSystem().get_file_info(str(path)))
                live = split_into_parts(str(path), group_rows(path))
                sources += [(part, version, True) for part in live]
            self._num_buckets = buckets_of(
                self.recipe.data, sum(part.num_rows for part, _, _ in sources)
            )
            known = (self.recipe, key_check(self.key), self._num_buckets)
            self._common, of_parts = context(*known), context(*known, of_parts=True)
            rows = [
                {LIVE: live, "key": part_key(part, version, live, of_parts), **asdict(part)}
                for part, version, live in sources
            ]
            now_us = int(time.time() * 1e6)
            latest_us = now_us + self.recipe.data.max_clock_skew_s * 1_000_000
            for row in rows:
                self.kept.drop_outdated(row["key"], latest_us)
            self.items_key = catalogue.ids_sha256[:32]
            kept = [piece.name for piece in self.kept.pieces(self.kept.items)]
            if self.items_key not in kept:
                write_item_rows(self.kept, self.items_key, catalogue.items)
            task = Split(
                self.recipe, self.key, self.kept, self.items_key, self._num_buckets, now_us, erased
            )
            # Under another catalogue a part may be another one; its task looks.
            return self._each(rows, self.kept.parts, task, afresh=kept != [self.items_key])

    def build(self, split: Rows) -> Rows:
        """Build the histories of each bucket."""
        # By name: a folder that other nodes have just written into may be listed without them.
        files: list[list[tuple[str, str]]] = [[] for _ in range(self._num_buckets)]
        for row in split:
            for number, sha256 in row["buckets"].items():
                files[int(number)].append((sha256, f"{row['key']}/{bucket_file(int(number))}"))
        end_us = max(row["latest_us"] for row in split) + 1
        task = Build(self.recipe, self._common, self.items_key, self.kept, end_us)
        before = self._renumber(self.kept.built(self._common))
        rows = [
            {
                "number": number,
                "files": [name for _, name in named],
                "hashes": [sha256 for sha256, _ in named],
                "key": task.key_of(number, [sha256 for sha256, _ in named]),
                "before": json.dumps(before.get(number)),
            }
            for number, named in enumerate(files)
        ]
        return self._each(rows, self.kept.buckets, task)

    def _renumber(self, built: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """The buckets of before that can be gone on from, once items have the rows of now."""
        (other, *more) = {each["items"] for each in built.values()} - {self.items_key} or {None}
        if other is None:
            return built
        pieces = [self.kept.items / key for key in (other, self.items_key)]
        if more or not all(map(self.kept.is_made, pieces)):
            return {at: each for at, each in built.items() if each["items"] == self.items_key}
        before, now = (pl.read_ipc(self.kept.mapped(piece) / ITEM_ROWS_FILE) for piece in pieces)

        def write(folder: Path) -> dict[str, Any]:
            np.save(folder / MOVED_FILE, moved_rows(before, now))
            return {}

        self.kept.make(self.kept.relating / MOVED, write)
        return built

    def relate(self, built: Rows, num_items: int) -> list[str]:
        """Add up the buckets' pairs of items, a range of left items a task.

        Returns:
            Keys of the matrices.
        """
        told = [(row["key"], part) for row in built for part in row["pairs"]]
        parts = [(key, str(part["part"])) for key, part in told]
        keys = matrix_keys([part for _, part in told], num_items)
        matrices = self.kept.matrices
        new = {at: key for at, key in keys.items() if not self.kept.is_made(matrices / key)}
        cuts = {name: [cut for other, cut in new if other == name] for name in COUNTED}
        relations = [{"relation": name, "cuts": cuts[name]} for name in COUNTED if cuts[name]]
        if relations:
            added = self.run_tasks(relations, AddSums(self.kept, parts, num_items))
            bounds = {row["relation"]: row["bounds"] for row in added}
            ranges = [
                {**row, "low": low, "high": high}
                for row in relations
                for low, high in pairwise(bounds[str(row["relation"])])
            ]
            self.run_tasks(ranges, KeepStrongest(self.kept, parts))
            joined = [
                {"relation": name, "cut": cut, "lows": bounds[name][:-1], "key": key}
                for (name, cut), key in new.items()
            ]
            self.run_tasks(joined, JoinRanges(self.kept, num_items))
        self.kept.bring(matrices / key for key in keys.values())
        for (_, cut), key in keys.items():
            target = self.out / RELATIONS_DIR / cut
            target.mkdir(parents=True, exist_ok=True)
            for file in (matrices / key).glob("*.npy"):
                shutil.copyfile(file, target / file.name)
        return list(keys.values())

    def _each(self, rows: Rows, folder: Path, task: Task, *, afresh: bool = False) -> Rows:
        """The results of all pieces: of those that are kept without a task, unless `afresh`."""
        new = [row for row in rows if afresh or not self.kept.is_made(folder / row["key"])]
        if new:
            self.run_tasks(new, task)
        results = self.kept.read_results([folder / row["key"] for row in rows])
        return [{"key": row["key"], **result} for row, result in zip(rows, results, strict=True)]
