"""Histories and exposures of a window of UTC days -> counts of every quantity.

A history shard is a task: it is read, counted and forgotten. So is a day of exposures, of which a
row a user and day is kept.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.arrays import Int32s, Int64s
from recsys.config import Recipe
from recsys.data.histories import US_PER_DAY, UserEvents
from recsys.drift.counts import Counts
from recsys.drift.quantities import (
    AWAY,
    EVENT_MIX,
    EVENTS,
    ITEM_AGE,
    NEW_DAYS,
    NEW_ITEMS,
    NEW_USERS,
    BinnedItems,
    Bins,
    ItemFacts,
    labels_of,
)
from recsys.outcomes.joining import EXPOSURES_DIR, SUMMARY_FILE, read_summary
from recsys.outcomes.rates import UNIT
from recsys.outcomes.tasks import day_file
from recsys.preparation.prepared import Prepared
from recsys.preparation.preparing import RunTasks
from recsys.schema import EXPOSURES, Col
from recsys.storage.reading import read_parquet


@dataclass(frozen=True)
class Window:
    """Some UTC days, each after the other.

    Attributes:
        first: days since 1970.
        days: how many.
    """

    first: int
    days: int

    @property
    def last(self) -> int:
        """Days since 1970."""
        return self.first + self.days - 1


def measure(
    recipe: Recipe,
    prepared: Prepared,
    window: Window,
    bins: dict[str, Bins],
    facts: ItemFacts,
    run_tasks: RunTasks,
) -> dict[str, Counts]:
    """Count what the users did, shard by shard.

    Args:
        recipe: of the run.
        prepared: its histories.
        window: to count.
        bins: of the quantities that are numbers.
        facts: of the items.
        run_tasks: one task a shard.

    Raises:
        DataError: a shard is missing or broken.
    """
    rows = [{"shard": str(path)} for path in prepared.shards]
    task = CountShard(recipe, prepared.folder, window, bins, facts.binned(bins))
    shards = [json.loads(row["counts"]) for row in run_tasks(rows, task)]
    return {
        name: reduce(add, (Counts.from_json(shard[name]) for shard in shards)) for name in shards[0]
    }


@dataclass(frozen=True)
class CountShard:
    """Counts a history shard of a folder; see `count_users`."""

    recipe: Recipe
    folder: Path
    window: Window
    bins: dict[str, Bins]
    items: BinnedItems

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row's shard, as JSON."""
        self.recipe.shared.bring(self.folder)
        users = Prepared(self.folder).users([Path(row["shard"])])
        found = count_users(users, self.window, self.bins, self.items)
        told = json.dumps({name: counts.as_json() for name, counts in found.items()})
        return {"order": row["order"], "counts": told}


def count_users(
    users: UserEvents, window: Window, bins: dict[str, Bins], items: BinnedItems
) -> dict[str, Counts]:
    """The counts of some users' events.

    Args:
        users: each with all events.
        window: to count.
        bins: of the quantities that are numbers.
        items: in the same bins.
    """
    days, owners = users.timestamps // US_PER_DAY, users.user_of_event
    starts = visit_starts(users)
    sizes = np.diff(np.append(starts, len(days)))
    is_first = np.isin(starts, users.offsets[:-1])
    away = np.where(is_first, np.nan, days[starts] - np.roll(days[starts], 1))
    inside = (days >= window.first) & (days <= window.last)
    rows, at = users.item_rows[inside], days[inside]
    age = (at - items.first_days[rows]).astype(np.float64)
    of_events = {
        EVENT_MIX: users.event_codes[inside].astype(np.int64),
        **{name: each[rows].astype(np.int64) for name, each in items.bins.items()},
        ITEM_AGE: bins[ITEM_AGE].of(age),
        NEW_ITEMS: (age < NEW_DAYS).astype(np.int64),
    }
    visited = inside[starts]
    of_visits = {
        EVENTS: bins[EVENTS].of(sizes[visited].astype(np.float64)),
        AWAY: bins[AWAY].of(away[visited]),
        NEW_USERS: is_first[visited].astype(np.int64),
    }
    found = {}
    for some, when, who in (
        (of_events, at, owners[inside]),
        (of_visits, days[starts][visited], owners[starts][visited]),
    ):
        for name, each in some.items():
            num_bins = len(labels_of(name, bins))
            found[name] = Counts.of(when - window.first, each, who, window.days, num_bins)
    return found


def visit_starts(users: UserEvents) -> Int64s:
    """The first event of each visit."""
    days, owners = users.timestamps // US_PER_DAY, users.user_of_event
    is_new = np.ones(len(days), dtype=bool)
    is_new[1:] = (days[1:] != days[:-1]) | (owners[1:] != owners[:-1])
    return np.flatnonzero(is_new)


def count_clicks(recipe: Recipe, window: Window) -> Counts | None:
    """Exposures without and with a click; None: there are none in the window.

    Raises:
        DataError: a file is broken.
    """
    folder = recipe.root / EXPOSURES_DIR
    recipe.shared.bring(folder)
    if not (folder / SUMMARY_FILE).is_file():
        return None
    known = read_summary(folder)["days"]
    visits = [
        _clicks(folder / day_file(day)).with_columns(pl.lit(number).alias("day"))
        for number, day in enumerate(days_of(window))
        if day in known
    ]
    if not visits:
        return None
    every = pl.concat(visits)
    clicks = every["clicks"].to_numpy()
    counts = np.stack([every["shown"].to_numpy() - clicks, clicks], axis=1).astype(np.float64)
    users = every[UNIT].rank("dense").to_numpy().astype(np.int64)
    return Counts.of_visits(every["day"].to_numpy().astype(np.int64), counts, users, window.days)


def last_whole_day(days: Int64s | Int32s) -> int:
    """The last day with an event that is over; of a log of today alone, today.

    A night that runs at two knows two hours of its own day: no sample of a day, and what comes of
    it later would be looked at by nobody.

    Args:
        days: of events, since 1970, rising.
    """
    today = int(time.time() // 86_400)
    return max(int(days[0]), min(int(days[-1]), today - 1))


def days_of(window: Window) -> list[str]:
    """The days as YYYY-MM-DD."""
    days = np.arange(window.first, window.last + 1).astype("datetime64[D]")
    return [str(day) for day in days]


def _clicks(path: Path) -> pl.DataFrame:
    """Exposures and clicked ones of each unit of a day, see `outcomes.rates`."""
    types = pl.Schema(EXPOSURES)
    names = (Col.exposure, Col.request, Col.user, Col.clicked)
    rows = read_parquet(
        path, "run `recsys exposures` again", {name: types[name] for name in names},
        nullable=(Col.request, Col.user), only=True,
    )  # fmt: skip
    unit = pl.coalesce(Col.user, Col.request, Col.exposure).alias(UNIT)
    shown, clicks = pl.len().alias("shown"), pl.col(Col.clicked).sum().alias("clicks")
    return rows.group_by(unit).agg(shown, clicks).sort(UNIT)
