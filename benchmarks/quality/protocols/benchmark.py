"""A folder under a protocol: what the jobs can read."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

PROTOCOLS = ("splits", "time", "leave_one_out")
UTC_US = pl.Datetime("us", "UTC")

# Columns of `Benchmark.rows`, and of `Benchmark.exposures`.
HISTORY, TIMES, CODES, NOW = "history", "times", "codes", "now"
IS_TEST = "is_test"


@dataclass(frozen=True)
class Benchmark:
    """A folder as the jobs can read it.

    Attributes:
        events: canonical columns.
        items: canonical columns.
        cuts: `head`, `valid` and `test`.
        targets: canonical names of the events to predict.
        protocol: one of `PROTOCOLS`.
        rows: of `splits` alone, the test rows in their order: user_id, item_id, history, times
            and codes of its events, label (1 where there is none), now.
        exposures: of a labelled log that is split by time, its events at their raw times: user_id,
            item_id, timestamp, label, and whether the row is to be predicted (`is_test`).
        whole_histories: whether the history that `splits` gives a test row holds all its user's
            earlier likes.
        notes: what a reader of the figures should know.
    """

    events: pl.DataFrame
    items: pl.DataFrame
    cuts: dict[str, dt.datetime]
    targets: tuple[str, ...]
    protocol: str
    rows: pl.DataFrame | None = None
    exposures: pl.DataFrame | None = None
    whole_histories: bool = False
    notes: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write the canonical log."""
        folder.mkdir(parents=True, exist_ok=True)
        self.events.write_parquet(folder / "events.parquet")
        self.items.write_parquet(folder / "items.parquet")
