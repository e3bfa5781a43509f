"""A shop's folder for `recsys exposures`: logs, answered lists and live events, joined here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from prepare_runs import tiny_data
from tiny import KEY, KEY_ENV, tiny_recipe

from recsys.config import Recipe
from recsys.data.feedback import Feedback, write_segment
from recsys.data.pseudonyms import pseudonym
from recsys.outcomes import joining
from recsys.outcomes.joining import EXPOSURES_DIR, join_exposures, read_summary
from recsys.preparation.preparing import Rows, Task, one_by_one
from recsys.schema import EVENTS, IMPRESSIONS, Col
from recsys.state import Tombstone

START = dt.datetime(2024, 3, 1, 9, tzinfo=dt.UTC)


def at(hours: float) -> dt.datetime:
    """A moment, in hours after nine o'clock of the first day."""
    return START + dt.timedelta(hours=hours)


def known(text: str | None) -> str | None:
    """The pseudonym of a user or request."""
    return None if text is None else pseudonym(text, KEY.encode())


def event(
    user: str, item: str, kind: str, hours: float, request: str | None = None, **more: Any
) -> dict[str, Any]:
    return {Col.user: user, Col.item: item, Col.event_type: kind, Col.timestamp: at(hours),
            Col.request: request, **more}  # fmt: skip


def shown(
    request: str, user: str | None, hours: float, *items: str | None, **more: Any
) -> list[dict[str, Any]]:
    """An answered list."""
    return [
        {Col.request: request, Col.user: known(user), Col.item: item, Col.position: place,
         Col.propensity: 0.5, Col.score: 0.5**place, Col.model_version: "m1",
         Col.timestamp: at(hours), Col.arm: "a", **more}
        for place, item in enumerate(items, start=1)
    ]  # fmt: skip


def table(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=schema)


class ShownLists:
    """The folder; what was written into it is joined by `join`."""

    def __init__(self, folder: Path, **data: object) -> None:
        self.folder, self.tasks = folder, dict[str, int]()
        (folder / "log" / "events").mkdir(parents=True)
        items = {Col.item: ["i1"], Col.title: ["a red cup"]}
        pl.DataFrame(items).write_parquet(folder / "log" / "items.parquet")
        self.log("000", [event("nobody", "i9", "view", -1000)])
        self.recipe: Recipe = tiny_recipe(folder, data=tiny_data(folder, num_buckets=4, **data))

    @property
    def feedback(self) -> Feedback:
        return Feedback.of(self.recipe.root)

    def log(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        pq.write_table(table(rows, EVENTS), self.folder / "log" / "events" / f"{name}.parquet")

    def lists(self, rows: Sequence[dict[str, Any]]) -> None:
        folder = self.feedback.impressions / "replica"
        folder.mkdir(parents=True, exist_ok=True)
        write_segment(folder, table(rows, IMPRESSIONS))

    def live(self, rows: Sequence[dict[str, Any]]) -> None:
        self.feedback.events.mkdir(parents=True, exist_ok=True)
        ours = [{**row, Col.user: known(row[Col.user])} for row in rows]
        write_segment(self.feedback.events, table(ours, EVENTS))

    def erase(self, user: str, hours: float) -> None:
        self.feedback.folder.mkdir(parents=True, exist_ok=True)
        us = int(at(hours).timestamp() * 1e6)
        pseudo = known(user)
        assert pseudo is not None
        self.feedback.write_erased({pseudo: Tombstone(us, us)})

    def join(self) -> pl.DataFrame:
        """The exposures; counts the tasks of each kind."""
        self.tasks.clear()

        def run(rows: Rows, task: Task) -> Rows:
            self.tasks[type(task).__name__] = len(rows)
            return one_by_one(rows, task)

        with patch.dict("os.environ", {KEY_ENV: KEY}), patch.object(joining, "one_by_one", run):
            folder = join_exposures(self.recipe)
        files = sorted(folder.glob("*.parquet"))
        rows = [pl.read_parquet(path, glob=False) for path in files]
        return pl.concat(rows).sort(Col.timestamp, Col.exposure) if rows else pl.DataFrame()

    @property
    def out(self) -> Path:
        return self.recipe.root / EXPOSURES_DIR

    @property
    def counts(self) -> dict[str, int]:
        """Those that are not 0."""
        told = read_summary(self.out)["counts"]
        return {name: number for name, number in told.items() if number}
