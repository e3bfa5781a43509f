"""A log whose truth is known: an arm drew lists for a small shop's users, who clicked by a rule.

The rule is the cascade model's: who clicks mostly reads no further.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tiny import CUTS, day

from recsys.arrays import Float64s, Int64s
from recsys.outcomes.joining import EXPOSURES_DIR, SUMMARY_FILE
from recsys.ranking.exploration import plackett_luce
from recsys.schema import EXPOSURES, Col
from recsys.storage.outputs import write_json

GOES_ON = 0.2


def expected_clicks(rates: Float64s) -> float:
    """Clicks on a list whose items would be clicked at these rates [K] if they were looked at."""
    looked = np.concatenate([[1.0], np.cumprod(1 - (1 - GOES_ON) * rates)[:-1]])
    return float((looked * rates).sum())


def clicked(rates: Float64s, rng: np.random.Generator) -> list[bool]:
    """One reader's clicks."""
    found, looks = [], True
    for rate in rates.tolist():
        found.append(looks and rng.random() < rate)
        looks = looks and (not found[-1] or rng.random() < GOES_ON)
    return found


def moments(num_lists: int, rng: np.random.Generator) -> Int64s:
    """[L] times within the test window, microseconds."""
    begin, end = (int(day(number).timestamp() * 1e6) for number in (CUTS["test"], 89))
    return np.sort(rng.integers(begin, end, num_lists))


def exposures_of(
    request: str, user: str | None, us: int, items: Sequence[str], **more: Any
) -> list[dict[str, Any]]:
    """The exposures of a list, in the order of its places; `more` by place, or for all."""
    base = {field.name: None if field.nullable else 0 for field in EXPOSURES} | {
        Col.request: request, Col.user: user, Col.arm: "draws", Col.model_version: "m1",
        Col.timestamp: dt.datetime.fromtimestamp(us / 1e6, dt.UTC),
    }  # fmt: skip
    base |= dict.fromkeys((Col.clicked, Col.carted, Col.purchased, Col.returned), False)
    return [
        base
        | {Col.exposure: f"{request}:{item}", Col.item: item, Col.position: at + 1}
        | {name: value[at] if isinstance(value, list) else value for name, value in more.items()}
        for at, item in enumerate(items)
    ]


def write_exposures(run: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """The folder that `recsys exposures` would write."""
    folder = run / EXPOSURES_DIR
    folder.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame(list(rows), schema=pl.Schema(EXPOSURES))
    days = frame.with_columns(pl.col(Col.timestamp).dt.strftime("%Y-%m-%d").alias("day"))
    names: dict[str, dict[str, int]] = {}
    for (name,), part in days.partition_by("day", as_dict=True).items():
        part.drop("day").write_parquet(folder / f"{name}.parquet")
        names[str(name)] = {"clicked": int(part[Col.clicked].sum())}
    counts = {"exposures": frame.height}
    write_json(
        folder / SUMMARY_FILE, {"counts": counts, "days": names, "attribution_window_h": 24.0}
    )
    return folder


def draw(scores: np.ndarray, k: int, temperature: float, rng: np.random.Generator) -> Any:
    """Rows and propensities of a drawn list of what has a finite score."""
    rows = np.flatnonzero(np.isfinite(scores))
    drawn = plackett_luce(scores[rows], k, temperature, rng)
    return rows[drawn.places], drawn.propensities
