"""A log in files that grows from night to night, prepared without a cluster."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from unittest.mock import patch

import polars as pl
import pyarrow.parquet as pq
from prepare_runs import hashes, tiny_data
from tiny import KEY, KEY_ENV, day, tiny_events, tiny_items, tiny_recipe

from recsys.config import Recipe
from recsys.data.feedback import Feedback, events_table, new_file_name
from recsys.data.pseudonyms import pseudonym
from recsys.preparation import preparing
from recsys.preparation.prepared import PREPARED
from recsys.preparation.preparing import Rows, Task, one_by_one, prepare
from recsys.schema import EVENT_CODE, Col
from recsys.state import StateEvent

MOST = 140


class GrowingLog:
    """A log in files, which a `prepare` after another reads."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tasks = folder, dict[str, int]()
        (folder / "log" / "events").mkdir(parents=True)
        self.items(tiny_items())
        events = tiny_events().sort(Col.timestamp)
        third = events.height // 3
        for number in range(3):
            self.add(f"b{number}", events[number * third : (number + 1) * third])

    def recipe(self, **data: object) -> Recipe:
        settings = {"max_quarantine_fraction": 0.9, "max_events_per_user": MOST, **data}
        return tiny_recipe(self.folder, data=tiny_data(self.folder, **settings))

    def items(self, items: pl.DataFrame) -> None:
        items.write_parquet(self.folder / "log" / "items.parquet")

    def add(self, name: str, events: pl.DataFrame) -> None:
        events.write_parquet(self.folder / "log" / "events" / f"{name}.parquet")

    def prepare(self, recipe: Recipe) -> dict[str, str]:
        """Prepare; counts the tasks of each kind, and gives the hashes of what is there."""
        self.tasks.clear()

        def run(rows: Rows, task: Task) -> Rows:
            self.tasks[type(task).__name__] = len(rows)
            return one_by_one(rows, task)

        with (
            patch.dict("os.environ", {KEY_ENV: KEY}),
            patch.object(preparing, "one_by_one", run),
        ):
            prepare(recipe)
        return hashes(recipe.root / PREPARED)

    def live(self, recipe: Recipe, user: str, item: str, moment: dt.datetime) -> None:
        event = StateEvent(
            pseudonym(user, KEY.encode()), "", item, EVENT_CODE["purchase"],
            int(moment.timestamp() * 1e6),
        )  # fmt: skip
        folder = Feedback.of(recipe.root).events
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(events_table([event]), folder / new_file_name())


def night(number: float = 89.5, users: range = range(4)) -> pl.DataFrame:
    """A few purchases of one time."""
    return pl.DataFrame(
        {
            Col.user: [f"customer-{user:03d}" for user in users],
            Col.item: [f"item-{user % 40:04d}" for user in users],
            Col.event_type: "purchase", Col.timestamp: day(number), Col.session: "s",
            Col.quantity: 1.0,
        },
        schema=tiny_events().schema,
    )  # fmt: skip


def with_new_items() -> pl.DataFrame:
    """Two that come before others in the catalogue, one of them in the middle."""
    new = tiny_items(2).with_columns(pl.Series(Col.item, ["a-first", "item-0007-b"]))
    return pl.concat([tiny_items(), new])
