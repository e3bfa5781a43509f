"""Runs of `prepare` on the small log as it is or spoilt, and how they end."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tiny import CUTS, day, prepared_in_process, tiny_events

from ray_jobs import cli
from recsys.preparation.kept import KEPT
from recsys.preparation.prepared import QUARANTINE_DIR
from recsys.schema import Col


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def tiny_cuts() -> dict[str, dt.datetime]:
    return {name: day(number) for name, number in CUTS.items()}


def tiny_data(folder: Path, **more: object) -> dict[str, object]:
    return {"source": str(folder / "log"), "cuts": tiny_cuts(), "max_tokens": 16, **more}


def with_robot(num_events: int) -> pl.DataFrame:
    events = tiny_events()
    robot = pl.DataFrame(
        {
            Col.user: "robot",
            Col.item: [f"item-{number % 40:04d}" for number in range(num_events)],
            Col.event_type: "view",
            Col.timestamp: [day(0) + dt.timedelta(seconds=number) for number in range(num_events)],
            Col.session: None,
            Col.quantity: 1.0,
        },
        schema=events.schema,
    )
    return pl.concat([events, robot])


Change = Callable[[pl.DataFrame], Any]


def first_rows(column: str, value: object, share: float = 0.02) -> Change:
    """Put a value into the column of the first rows."""

    def change(events: pl.DataFrame) -> pl.DataFrame:
        at = pl.int_range(pl.len()) < max(1, int(share * events.height))
        kind = events.schema[column]
        return events.with_columns(
            pl.when(at).then(pl.lit(value, dtype=kind)).otherwise(column).alias(column)
        )

    return change


def refused(folder: Path, capsys: pytest.CaptureFixture[str], recipe: Path) -> str:
    """Run `recsys prepare`; it must end with one line on standard error and leave nothing."""
    capsys.readouterr()
    with prepared_in_process(), pytest.raises(SystemExit) as end:
        cli.main(["prepare", "--config", str(recipe)])
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("prepare: ") and message.count("\n") == 1, message
    assert "Fix: " in message
    left = (
        {path.name for path in (folder / "run").glob("*")} if (folder / "run").is_dir() else set()
    )
    # The key that was made, the rows that were refused, and the parts that were split.
    assert left <= {"pseudonym.key", QUARANTINE_DIR, KEPT}
    return message
