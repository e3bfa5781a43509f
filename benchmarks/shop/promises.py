"""What the heads of a night's champion promise of the next day, beside the truth.

The generator knows the true P(click) of every item that it showed. The heads are asked as `recsys
drift` asks them: at the item's place, with the rates of users as of the night before.

The log takes a cart or a purchase of a shown item within a day for a click, even where the shopper
found the item without the list. The heads learn from that log; the true P(click) leaves it out.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.shop.nights import Night
from benchmarks.shop.visits import FIRST_DAY, Shop
from recsys.arrays import Float64s
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.run import HEADS_USERS, Run
from recsys.evaluation.metrics.calibration import ece_equal_mass
from recsys.outcome_heads.baselines import baselines
from recsys.outcome_heads.served import ServedHeads
from recsys.outcomes.joining import EXPOSURES_DIR
from recsys.outcomes.tasks import day_file
from recsys.schema import Col

#: By day: the champion's version, and its heads with the rates of users.
Served = Mapping[int, tuple[str, ServedHeads]]


def keep_users(run: Run, work: Path, day: int) -> None:
    """Keep the rates of users as they are after a night: the next one writes others."""
    if run.heads_folder.is_dir():
        shutil.copytree(run.heads_folder / HEADS_USERS, _users(work, day))


def heads_by_day(run: Run, work: Path, nights: Sequence[Night]) -> Served:
    """The champion and its heads, as they are served, by the day after its night.

    Args:
        run: after the last night.
        work: where `keep_users` kept the rates.
        nights: that have ended.
    """
    found = {}
    for night in nights:
        if night.champion is None or not _users(work, night.day).is_dir():
            continue
        heads = Bundle.open(run.registry.path(night.champion), verify=False).outcomes
        if heads is not None:
            known = heads.with_users(_users(work, night.day))
            found[night.day + 1] = (night.champion, known)
    return found


def promises(run: Run, served: Served, shop: Shop, shown: pl.DataFrame) -> list[dict[str, Any]]:
    """Of each day whose champion has heads: how near their promises are to the truth.

    Args:
        run: with the exposures of all days.
        served: see `heads_by_day`.
        shop: after the last day.
        shown: of `Days.serve`, of all days.

    Returns:
        By day: see `beside_truth`, with the `day` and its `bundle`.
    """
    names = pl.Series(Col.item, shop.ids).gather(shown[Col.item_row])
    truth, rows = shown.select("day", Col.request, names, "click"), []
    for day in sorted(served.keys() & set(shown["day"])):
        version, heads = served[day]
        date = (FIRST_DAY + dt.timedelta(days=day)).date()
        exposures = pl.read_parquet(run.root / EXPOSURES_DIR / day_file(date.isoformat()))
        of_day = truth.filter(pl.col("day") == day).drop("day")
        known = exposures.join(of_day, on=[Col.request, Col.item])
        rows.append({"day": day, "bundle": version, **beside_truth(heads, version, known)})
    return rows


def beside_truth(heads: ServedHeads, version: str, rows: pl.DataFrame) -> dict[str, Any]:
    """Promised probabilities of clicks beside the true ones.

    Args:
        heads: with the rates of users.
        version: of their bundle.
        rows: [N] exposures, and the true P(click) as `click`.

    Returns:
        The number of `items`, the mean `truth`, and `heads` and `item rate` (the smoothed rate of
        the item, which knows no place and no user), each with the mean that it `promised`, the
        mean `absolute_error`, the `correlation`, and the `calibration_error`: over 15 bins of
        equally many items, by what was promised, |mean truth - mean promise|.
    """
    shown, truth = heads.shown(rows, version), rows["click"].to_numpy()
    rate = heads.card["heads"]["click"]["rate"]
    plain = baselines(heads.model.spec, shown.inputs.numpy(), "click", rate)["item rate"]
    told = {"heads": heads.model.clicks_at_places(shown), "item rate": plain}
    return {
        "items": rows.height,
        "truth": float(truth.mean()),
        **{name: _errors(np.asarray(each, np.float64), truth) for name, each in told.items()},
    }


def _errors(promised: Float64s, truth: Float64s) -> dict[str, float | None]:
    varies = min(promised.std(), truth.std()) > 0
    return {
        "promised": float(promised.mean()),
        "absolute_error": float(np.abs(promised - truth).mean()),
        "correlation": float(np.corrcoef(promised, truth)[0, 1]) if varies else None,
        "calibration_error": ece_equal_mass(promised, truth),
    }


def _users(work: Path, day: int) -> Path:
    return work / f"users-{day:02d}"
