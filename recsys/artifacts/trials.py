"""All epochs of all trials of a search, as a table: `trials.parquet`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from recsys.evaluation.report import METRIC
from recsys.storage.outputs import whole_file
from recsys.storage.reading import read_parquet

#: What stands in each row, whatever is searched; the settings follow under their dotted names.
COLUMNS: dict[str, Any] = {
    "trial": pl.String,
    "status": pl.String,
    "reason": pl.String,
    "epoch": pl.Int64,
    METRIC: pl.Float64,
    "loss": pl.Float64,
    "train_s": pl.Float64,
    "valid_s": pl.Float64,
    "seconds": pl.Float64,
}
#: Null in a row of a trial without an epoch; `reason` in that of one that finished.
MAY_MISS = ("reason", "epoch", METRIC, "loss", "train_s", "valid_s")


def trials_frame(trials: list[dict[str, Any]]) -> pl.DataFrame:
    """A row a trial and epoch, the best trial first; a trial without an epoch has one without.

    `seconds` are those of the trial's training and validation until then.

    Args:
        trials: with `trial`, `status`, `reason`, `settings` by dotted names, and `curve`.
    """
    rows = []
    for trial in trials:
        settings = trial["settings"]
        told = {name: trial[name] for name in ("trial", "status", "reason")}
        seconds = 0.0
        for point in trial["curve"] or [{}]:
            seconds += point.get("train_s", 0.0) + point.get("valid_s", 0.0)
            measured = {name: point.get(name) for name in list(COLUMNS)[3:-1]}
            rows.append({**told, **measured, "seconds": seconds, **settings})
    names = trials[0]["settings"] if trials else {}
    kinds = {name: _kind([trial["settings"][name] for trial in trials]) for name in names}
    columns = {
        name: [str(row[name]) if kind is pl.String and row[name] is not None else row[name]
               for row in rows]
        for name, kind in (COLUMNS | kinds).items()
    }  # fmt: skip
    return pl.DataFrame(columns, schema=COLUMNS | kinds)


def _kind(values: list[Any]) -> Any:
    """The column type of a setting's values; text where they are of several kinds."""
    found = {type(value) for value in values if value is not None}
    if found <= {bool}:
        return pl.Boolean
    if found <= {int}:
        return pl.Int64
    return pl.Float64 if found <= {int, float} else pl.String


def write_trials(path: Path, trials: list[dict[str, Any]]) -> None:
    """Write the table, whole or not at all; see `trials_frame`."""
    with whole_file(path) as aside:
        trials_frame(trials).write_parquet(aside)


def read_trials(path: Path) -> pl.DataFrame:
    """Read the table.

    Raises:
        DataError: it is broken, or columns are missing.
    """
    return read_parquet(path, "run `recsys tune` again", COLUMNS, nullable=MAY_MISS)
