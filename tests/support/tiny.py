"""A small shop for tests: a log with tastes in it, and a recipe that trains on it in seconds.

It lies in `<folder>/log`, the run in `<folder>/run`, the language model in `<folder>/language`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import polars as pl
import yaml
from bundles import BRANDS, COLOURS, THINGS, item_id, make_language_model

from ray_jobs import prepare as job
from ray_jobs.common.texts import ensure_store
from recsys.artifacts.run import Run
from recsys.config import Recipe, recipe_from_dict
from recsys.preparation.prepared import Prepared
from recsys.preparation.preparing import one_by_one, prepare
from recsys.schema import Col
from recsys.text.pretrained import WEIGHTS
from recsys.text.text_store import TextStore

KEY_ENV, KEY = "RAYCOMMEND_PSEUDONYM_KEY", "0123456789abcdef0123456789abcdef"

FIRST_DAY = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
NUM_DAYS = 90
#: Day of each cut.
CUTS = {"head": 50, "valid": 64, "test": 77}


def day(number: float) -> dt.datetime:
    """A moment of the log, counted in days from its first."""
    return FIRST_DAY + dt.timedelta(days=number)


def user_id(number: int) -> str:
    return f"customer-{number:03d}"


def tiny_items(num_items: int = 40) -> pl.DataFrame:
    """Texts that say what an item is: colour, thing, brand. The last one is sold out."""
    rows = range(num_items)
    return pl.DataFrame(
        {
            Col.item: [item_id(row) for row in rows],
            Col.title: [f"{COLOURS[row % 5]} {THINGS[row // 5 % 5]} {row}" for row in rows],
            Col.brand: [BRANDS[row % 3] for row in rows],
            Col.category: [THINGS[row // 5 % 5] for row in rows],
            Col.price: [float(1 + row) for row in rows],
            Col.available: [row + 1 < num_items for row in rows],
        }
    )


def tiny_events(num_users: int = 60, num_items: int = 40, seed: int = 0) -> pl.DataFrame:
    """90 days of visits: some views, then a basket of purchases that share session and timestamp.

    Each user has a favourite thing and a favourite colour and mostly buys items of either.
    Users and items of the last twentieth come up in the test window only.
    """
    rng = np.random.default_rng(seed)
    colours, things = np.arange(num_items) % 5, np.arange(num_items) // 5 % 5
    old_items = num_items - max(1, num_items // 20)
    rows: list[tuple[str, str, str, dt.datetime, str]] = []
    for user in range(num_users):
        is_new = user >= num_users - max(1, num_users // 20)
        likes = (things == rng.integers(5)) | (colours == rng.integers(5))
        taste = np.where(likes, 8.0, 0.5)
        visit, at = 0, (CUTS["test"] if is_new else 0) + rng.uniform(0.5, 6)
        while at < NUM_DAYS:
            on_sale = num_items if at > CUTS["test"] + 0.1 else old_items
            weight = taste * (np.arange(num_items) < on_sale)
            picked = rng.choice(num_items, size=4, replace=False, p=weight / weight.sum())
            session, moment = f"visit-{user}-{visit}", day(round(at * 24) / 24)
            seen = [moment - dt.timedelta(minutes=10 - nth) for nth in range(4)]
            bought = picked[: rng.integers(1, 4)]
            rows += [
                (user_id(user), item_id(item), "view", time, session)
                for item, time in zip(picked, seen, strict=True)
            ]
            rows += [(user_id(user), item_id(item), "purchase", moment, session) for item in bought]
            visit, at = visit + 1, at + rng.uniform(2, 8)
    names = [Col.user, Col.item, Col.event_type, Col.timestamp, Col.session]
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(
        pl.col(Col.timestamp).cast(pl.Datetime("us", "UTC")), pl.lit(1.0).alias(Col.quantity)
    )


def write_log(
    folder: Path, events: pl.DataFrame, items: pl.DataFrame, *, hive: bool = False
) -> Path:
    """Write canonical Parquet: one file a table, or the events in `event_type=...` folders."""
    folder.mkdir(parents=True, exist_ok=True)
    items.write_parquet(folder / "items.parquet")
    if not hive:
        events.write_parquet(folder / "events.parquet", row_group_size=500)
        return folder
    for (name,), frame in events.partition_by(Col.event_type, as_dict=True).items():
        part = folder / "events" / f"{Col.event_type}={name}"
        part.mkdir(parents=True)
        half = frame.height // 2
        for number, rows in enumerate((frame[:half], frame[half:])):
            rows.drop(Col.event_type).write_parquet(part / f"part-{number}.parquet")
    return folder


def tiny_log(
    folder: Path, *, num_users: int = 60, num_items: int = 40, seed: int = 0, hive: bool = False
) -> Path:
    """Write the small log; returns the folder."""
    events = tiny_events(num_users, num_items, seed)
    return write_log(folder, events, tiny_items(num_items), hive=hive)


def tiny_settings(folder: Path, **sections: Mapping[str, object] | object) -> dict[str, Any]:
    """The small recipe as plain data; a section given as a mapping is merged into it."""
    language = folder / "language"
    if not (language / WEIGHTS).is_file():
        make_language_model(language)
    raw: dict[str, Any] = {
        "name": "tiny",
        "run_dir": str(folder / "run"),
        "data": {
            "source": str(folder / "log"),
            "cuts": {name: day(number) for name, number in CUTS.items()},
            "max_tokens": 16,
            "num_buckets": 4,
        },
        "model": {
            "language_model": str(language),
            "dim": 16,
            "num_layers": 1,
            "num_heads": 2,
            "max_history": 32,
        },
        "train": {
            "num_workers": 1,
            "epochs": 2,
            "batch_size": 8,
            "learning_rate": 0.01,
            "fresh_texts_per_step": 16,
        },
        "tune": {
            "num_trials": 2,
            "space": {
                "train.learning_rate": {"loguniform": [3e-4, 5e-3]},
                "train.batch_size": {"choice": [8, 16]},
            },
        },
        "embed": {"num_actors": 1},
        "evaluate": {"num_actors": 1, "num_bootstrap": 50},
        "promote": {"registry": str(folder / "registry")},
        "ray": {"address": "local", "num_cpus": 1},
    }
    for name, section in sections.items():
        merges = isinstance(raw.get(name), dict) and isinstance(section, Mapping)
        raw[name] = {**raw[name], **section} if merges else section
    return raw


def tiny_recipe(folder: Path, **sections: Mapping[str, object] | object) -> Recipe:
    """The small recipe; see `tiny_settings`."""
    return recipe_from_dict(tiny_settings(folder, **sections))


def tiny_recipe_file(folder: Path, **sections: Mapping[str, object] | object) -> Path:
    """The small recipe as a file, for the command line."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_settings(folder, **sections), sort_keys=False))
    return path


@contextmanager
def prepared_in_process() -> Iterator[None]:
    """Let `recsys prepare` run its tasks in this process, one after another."""
    with (
        patch.dict("os.environ", {KEY_ENV: KEY}),
        patch.object(job, "tasks_on", lambda _: nullcontext(one_by_one)),
    ):
        yield


def prepare_here(recipe: Recipe) -> Prepared:
    """`prepare` without a cluster: its tasks one after another, in this process."""
    with patch.dict("os.environ", {KEY_ENV: KEY}):
        prepare(recipe)
    return Prepared.open(recipe.root)


def store_here(recipe: Recipe) -> TextStore:
    """The text store without a cluster."""

    def run(_: Recipe, task: Any, num_texts: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
        task.load()
        half = num_texts // 2
        for low, high in ((half, num_texts), (0, half)):
            yield low, high, task.encode(low, high)

    return ensure_store(Run.open(recipe), run)


def trainable_here(recipe: Recipe) -> Prepared:
    """All that a training reads, without a cluster."""
    prepared = prepare_here(recipe)
    store_here(recipe)
    return prepared


class Shop(NamedTuple):
    """A recipe and what `prepare` and the text store made of its log."""

    recipe: Recipe
    prepared: Prepared
    store: TextStore


def tiny_shop(folder: Path, **sections: Mapping[str, object] | object) -> Shop:
    """The small log, prepared without a cluster."""
    tiny_log(folder / "log")
    recipe = tiny_recipe(folder, **sections)
    prepared = prepare_here(recipe)
    return Shop(recipe, prepared, store_here(recipe))
