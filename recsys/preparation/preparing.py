"""A raw log becomes prepared data: the steps, whatever runs their tasks."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from recsys.config import Recipe
from recsys.data.adapters import Part, open_adapter
from recsys.data.adapters.base import split_into_parts
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
from recsys.preparation.build import Build, Relate
from recsys.preparation.finish import Results, finish
from recsys.preparation.prepared import (
    BUCKETS_DIR,
    CATALOGUE_DIR,
    COUNTS_DIR,
    DAYS_DIR,
    HISTORIES_DIR,
    PREPARED,
    QUARANTINE_DIR,
    cut_us,
    lost_key,
)
from recsys.preparation.split import LIVE, Split
from recsys.schema import Col
from recsys.storage.outputs import whole_folder
from recsys.text.pretrained import load_tokenizer, locate, tokens_problem

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
    folder = recipe.root / PREPARED
    with tasks or nullcontext(one_by_one) as run_tasks, whole_folder(folder) as out:
        made = (HISTORIES_DIR, CATALOGUE_DIR, QUARANTINE_DIR, BUCKETS_DIR, COUNTS_DIR, DAYS_DIR)
        for name in made:
            (out / name).mkdir()
        items = adapter.read_items()
        catalogue = _write_catalogue(recipe, items.table, out)
        split = _split(recipe, key, out, scan.parts, run_tasks)
        built = _build(recipe, out, split, run_tasks)
        shards = [str(out / HISTORIES_DIR / row["shard"]) for row in built if row["shard"]]
        cuts = [{"as_of": name} for name in cut_us(recipe.data.cuts)]
        run_tasks(cuts, Relate(recipe, out, shards))
        results = Results(catalogue, scan, items.num_superseded, split, built, key_check(key))
        finish(recipe, out, results)
    return folder


def _write_catalogue(recipe: Recipe, items: pl.DataFrame, out: Path) -> Catalogue:
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
    numbered, texts = build_catalogue(good, tokenizer)
    numbered.write_parquet(out / CATALOGUE_DIR / ITEMS_FILE)
    texts.write_parquet(out / CATALOGUE_DIR / TEXTS_FILE)
    return Catalogue(numbered, texts)


def _split(recipe: Recipe, key: bytes, out: Path, parts: list[Part], run_tasks: RunTasks) -> Rows:
    """Bucket the log's parts and the live events, none of them an erased user's."""
    feedback = Feedback.of(recipe.root)
    with feedback.locked(exclusive=False):
        live = [
            part
            for path in finished(feedback.events)
            for part in split_into_parts(str(path), group_rows(path))
        ]
        sources = [(part, False) for part in parts] + [(part, True) for part in live]
        rows = [
            {"number": number, LIVE: is_live, **asdict(part)}
            for number, (part, is_live) in enumerate(sources)
        ]
        now_us = int(time.time() * 1e6)
        return run_tasks(rows, Split(recipe, key, out, now_us, feedback.erased()))


def _build(recipe: Recipe, out: Path, split: Rows, run_tasks: RunTasks) -> Rows:
    """Build the histories of each bucket."""
    # By name: a folder that other nodes have just written into may be listed without them.
    files: list[list[str]] = [[] for _ in range(recipe.data.num_buckets)]
    for row in split:
        for number in row["buckets"]:
            files[number].append(f"{number:05d}/{row['order']:05d}.parquet")
    buckets = [{"bucket": number, "files": names} for number, names in enumerate(files)]
    end_us = max(row["latest_us"] for row in split) + 1
    return run_tasks(buckets, Build(recipe, out, end_us))
