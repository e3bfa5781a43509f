"""The exposures of a run -> rates by arm, model, placement, position and day; arms side by side.

A file is a UTC day. It is read, added up and forgotten.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl

from recsys.config import Recipe
from recsys.outcomes.between_arms import compare_arms, planned_shares
from recsys.outcomes.joining import read_summary
from recsys.outcomes.rates import GROUP, Tally
from recsys.outcomes.score_quality import Scored
from recsys.outcomes.tasks import day_file
from recsys.schema import EXPOSURES, TOLD_BY, Col
from recsys.storage.reading import read_parquet

FORMAT: Final = 1
#: What `recsys outcomes` writes in the run's folder.
OUTCOMES_FILE: Final = "outcomes.json"
_COLUMNS: Final = (
    Col.exposure, Col.request, Col.user, Col.item, Col.position, Col.score, Col.arm,
    Col.model_version,
    Col.placement, Col.clicked, Col.carted, Col.purchased, Col.dwell_ms, Col.value,
)  # fmt: skip
_FIX: Final = "run `recsys exposures` again"


def measure(
    recipe: Recipe, folder: Path, told_by: Sequence[str], catalogue: pl.Series | None
) -> dict[str, Any]:
    """What came of what was shown, as plain data; docs/formats.md lists it.

    Args:
        recipe: plans the arms' shares.
        folder: of the exposures.
        told_by: of `TOLD_BY`.
        catalogue: ids of the items that coverage is the share of; None: not known.

    Raises:
        DataError: there are no exposures, or a file is broken.
    """
    summary = read_summary(folder)
    num_items = None if catalogue is None else len(catalogue)
    columns = {name: column for name, column in TOLD_BY.items() if name in told_by}
    every = Tally(None, num_items)
    tallies = {name: Tally(column, num_items) for name, column in columns.items() if name != "day"}
    arms, shares = Tally(Col.arm), planned_shares(recipe.serve.arms)
    models: dict[str, set[str]] = defaultdict(set)
    scored = Scored()
    since = recipe.outcomes.arms_since
    compared = [day for day in sorted(summary["days"]) if since is None or day >= str(since)]
    days: list[dict[str, Any]] = []
    for day in sorted(summary["days"]):
        rows = _read_day(folder, day, catalogue)
        for tally in (every, *tallies.values(), *([arms] if day in compared else [])):
            tally.add(rows)
        scored.add(rows)
        if day in compared:
            for arm, version in (
                rows.select(Col.arm, Col.model_version).drop_nulls().unique().rows()
            ):
                models[arm].add(version)
        if "day" in columns:
            alone = Tally(columns["day"], num_items)
            alone.add(rows)
            days += alone.groups()
    logged: set[str] = set(arms.sums[GROUP].drop_nulls()) if compared else set()
    groups = {name: tally.groups() for name, tally in tallies.items()}
    versions = {arm: sorted(found) for arm, found in models.items()}
    return {
        "format": FORMAT,
        "attribution_window_h": summary["attribution_window_h"],
        "days": len(summary["days"]),
        "num_items": num_items,
        "all": every.groups(),
        "scores": scored.told(),
        "by": groups | ({"day": days} if "day" in columns else {}),
        "compared_days": len(compared),
        "comparisons": compare_arms(arms.sums, shares, recipe.outcomes, versions)
        if compared
        else [],
        "not_compared": sorted(logged - set(shares)) if len(logged) > 1 else [],
    }


def _read_day(folder: Path, day: str, catalogue: pl.Series | None) -> pl.DataFrame:
    """The exposures of a day, with `day` and whether the item is `in_catalogue`."""
    types = pl.Schema(EXPOSURES)
    nullable = tuple(field.name for field in EXPOSURES if field.nullable)
    rows = read_parquet(
        folder / day_file(day), _FIX, {name: types[name] for name in _COLUMNS},
        nullable=nullable, only=True,
    )  # fmt: skip
    known = pl.lit(False) if catalogue is None else pl.col(Col.item).is_in(catalogue.implode())
    return rows.with_columns(known.alias("in_catalogue"), pl.lit(day).alias(TOLD_BY["day"]))
