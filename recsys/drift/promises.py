"""Clicks beside those that the outcome heads of a bundle promised.

Only of exposures after all that the heads know: of earlier ones they have counted the clicks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import polars as pl

from recsys.artifacts.bundle import Bundle
from recsys.artifacts.run import HEADS_USERS, Run
from recsys.drift.measuring import Window, days_of
from recsys.errors import DataError
from recsys.evaluation.metrics.ratio import Ratio, ratio
from recsys.outcome_heads.rates.tables import DAY_US, RateTables
from recsys.outcome_heads.served import ServedHeads
from recsys.outcomes.joining import EXPOSURES_DIR, SUMMARY_FILE, read_summary
from recsys.outcomes.rates import UNIT
from recsys.outcomes.tasks import day_file
from recsys.schema import EXPOSURES, Col
from recsys.storage.reading import read_parquet

#: Of more exposures, those of some users are taken; the heads tell about 25,000 a second.
MOST_ROWS: Final = 500_000
#: Exposures whose inputs are made at once.
_AT_ONCE: Final = 20_000
#: What the heads, and the unit, ask of them.
_COLUMNS: Final = (
    Col.exposure, Col.request, Col.user, Col.item, Col.timestamp, Col.position, Col.propensity,
    Col.score, Col.model_version, Col.placement, Col.clicked, Col.carted, Col.purchased,
    Col.dwell_ms, Col.value, Col.long_view,
)  # fmt: skip


def clicks_by_promised(bundle: Bundle, run: Run, window: Window) -> Ratio | None:
    """Clicks per promised click, by user; 1: as promised.

    The heads know the users' rates that the run's folder has, as those that are served do. These
    may be newer than the bundle's own; earlier days are left out then.

    Args:
        bundle: whose heads promise.
        run: with its exposures and the rates of users.
        window: the days that may count.

    Returns:
        None: there are no heads, no such rates, or no exposures after them.

    Raises:
        BundleError, DataError: a file is broken.
    """
    heads, folder = bundle.outcomes, run.root / EXPOSURES_DIR
    run.recipe.shared.bring(folder)
    run.recipe.shared.bring(run.heads_folder)
    if heads is None or not (folder / SUMMARY_FILE).is_file():
        return None
    try:
        heads = heads.with_users(run.heads_folder / HEADS_USERS)
        users_as_of = RateTables.open(run.heads_folder, None).as_of
    except DataError as error:  # as the service has it: they are of other heads, or not there
        print(f"    no promised clicks: {error}", flush=True)
        return None
    since = max(window.first, -(-max(heads.tables.as_of, users_as_of) // DAY_US))
    known = read_summary(folder)["days"]
    days = [day for day in days_of(Window(since, window.last + 1 - since)) if day in known]
    if not days:
        return None
    share = MOST_ROWS / max(MOST_ROWS, sum(known[day]["exposures"] for day in days))
    sums = pl.concat(_by_unit(folder / day_file(day), heads, bundle.version, share) for day in days)
    units = sums[UNIT].rank("dense").to_numpy()
    return ratio(sums["clicks"].to_numpy(), sums["promised"].to_numpy(), units)


def _by_unit(path: Path, heads: ServedHeads, version: str, share: float) -> pl.DataFrame:
    """Clicks and promised clicks of each unit of a day, see `outcomes.rates`; a share of all."""
    types = pl.Schema(EXPOSURES)
    rows = read_parquet(
        path, "run `recsys exposures` again", {name: types[name] for name in _COLUMNS},
        nullable=tuple(field.name for field in EXPOSURES if field.nullable), only=True,
    )  # fmt: skip
    unit = pl.coalesce(Col.user, Col.request, Col.exposure)
    rows = rows.with_columns(unit.alias(UNIT))
    if share < 1:
        rows = rows.filter(pl.col(UNIT).hash(seed=7) / 2.0**64 < share)
    parts = [pl.DataFrame(schema={UNIT: pl.String, "clicks": pl.Float64, "promised": pl.Float64})]
    for some in rows.iter_slices(_AT_ONCE):
        shown = heads.shown(some, version)
        told = {
            "clicks": shown.labels[:, 0].numpy(), "promised": heads.model.clicks_at_places(shown)
        }  # fmt: skip
        sums = [pl.Series(name, each, pl.Float64) for name, each in told.items()]
        parts.append(some.select(UNIT).with_columns(sums))
    return pl.concat(parts).group_by(UNIT).agg(pl.col("clicks", "promised").sum()).sort(UNIT)
