"""What lists by `objective: click` are truly worth, beside lists by relevance.

Asked of the champion without the service: a service whose arm has an objective needs heads in that
arm's bundle when it starts, and the first bundle has none.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
import polars as pl

from benchmarks.shop.days import POPULAR
from benchmarks.shop.promises import Served
from benchmarks.shop.visits import K, Shop, user_id
from recsys.arrays import Float64s
from recsys.artifacts.run import Run
from recsys.data.pseudonyms import pseudonym
from recsys.evaluation.metrics.ratio import ratio
from recsys.evaluation.report import finite
from recsys.outcome_heads.served import ServedHeads
from recsys.recommender.by_id import Recommender
from recsys.recommender.objective import Worth
from recsys.schema import Col

#: Items of the best scores that compete for an objective, as in the service.
CANDIDATES: Final = 300


def by_objective(
    run: Run, served: Served, shop: Shop, shown: pl.DataFrame, key: bytes
) -> dict[str, Any] | None:
    """Compare both for named shoppers, at the moments of their lists of the last day.

    Args:
        run: after the last night.
        served: see `heads_by_day`.
        shop: after the last day.
        shown: of `Days.serve`, of all days.
        key: of the pseudonyms.

    Returns:
        Expected clicks a list by `relevance` and by `click`, and their `difference` with its
        interval by shopper; None: that day's champion had no heads.
    """
    day = int(shown["day"].max())  # type: ignore[arg-type]
    if day not in served:
        return None
    version, heads = served[day]
    model = Recommender.load(run.registry.path(version))
    named = shown.filter(pl.col("day") == day, pl.col(Col.arm) != POPULAR)
    lists = named.unique(Col.request, keep="first", maintain_order=True)
    clicks = true_clicks_of(shop, model, heads, lists, key)
    more = clicks["click"] - clicks["relevance"]
    found = ratio(more, np.ones(len(more)), lists["shopper"].to_numpy())
    low, high = map(finite, found.interval())
    return {
        "day": day, "bundle": version, "lists": lists.height,
        **{name: float(each.mean()) for name, each in clicks.items()},
        "difference": {"value": finite(found.value), "low": low, "high": high},
    }  # fmt: skip


def true_clicks_of(
    shop: Shop, model: Recommender, heads: ServedHeads, lists: pl.DataFrame, key: bytes
) -> dict[str, Float64s]:
    """[lists] expected clicks on the lists that a model would have shown, by objective.

    Args:
        shop: after the day of the lists.
        model: answers as the service does.
        heads: its own, with the rates of users.
        lists: a row of `Days.serve` for each.
        key: of the pseudonyms.
    """
    rows = np.array([shop.row_of[model.item_id(row)] for row in range(model.num_items)])
    place, none = np.arange(1, K + 1), np.zeros(0, dtype=np.int32)
    found: dict[str, list[float]] = {"relevance": [], "click": []}
    for user, at, day in lists.select("shopper", Col.timestamp, "day").iter_rows():
        events = [(shop.ids[item], kind, then) for item, kind, then in shop.logs[user]]
        history = model.history([event for event in events if event[2] < at], now=at)
        expect = partial(heads.expect, pseudonym(user_id(user), key), now=int(at.timestamp() * 1e6))
        for name, worth in {
            "relevance": None, "click": Worth({"click": 1.0}, CANDIDATES, expect)
        }.items():  # fmt: skip
            best, _ = model.recommend(
                history, K, exclude=none, allowed=None, exclude_owned=True, worth=worth
            )
            users = np.full(len(best), user)
            chances = shop.shoppers.chances(users, rows[best], place, shop.tastes[day])
            found[name].append(float(chances.click.sum()))
    return {name: np.array(each) for name, each in found.items()}
