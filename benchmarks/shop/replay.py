"""What a bundle would have earned on lists that were shown: `policy-value`, and the truth."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import polars as pl

from benchmarks.shop.days import EXPLORE, TEMPERATURE
from benchmarks.shop.visits import FIRST_DAY, K, Shop
from ray_jobs import policy_value
from recsys.arrays import Float64s
from recsys.artifacts.run import Run
from recsys.errors import NotJudged
from recsys.outcomes.policy.values import DEFAULT
from recsys.ranking.exploration import Exploration
from recsys.recommender.by_id import Recommender
from recsys.schema import Col
from recsys.storage.reading import read_json

#: Lists that are drawn for each that was shown.
DRAWS: Final = 8
#: Temperatures at which a bundle is judged: the exploring arm's, and a more decided one.
TEMPERATURES: Final = (TEMPERATURE, 0.8 * TEMPERATURE)


def judge(run: Run, shop: Shop, shown: pl.DataFrame) -> list[dict[str, Any]]:
    """Judge the champion on the lists that the exploring arm drew in the last night's window.

    Args:
        run: under the recipe of the last night, which has ended.
        shop: after it.
        shown: of `Days.serve`, of all days.

    Returns:
        By temperature: clicks a list as estimated, with the interval, and in truth; `refused` where
        the log does not suffice.
    """
    version = run.registry.champion()
    assert version is not None
    model = Recommender.load(run.registry.path(version))
    since = (run.recipe.data.cuts.test - FIRST_DAY).days
    lists = shown.filter(pl.col(Col.arm) == EXPLORE, pl.col("day") >= since)
    rows = []
    for temperature in TEMPERATURES:
        row: dict[str, Any] = {"bundle": version, "temperature": temperature}
        row["truth"] = float(true_clicks(shop, model, lists, temperature, 0).mean())
        try:
            path = policy_value.execute(run, bundle=version, temperature=temperature)
            found = read_json(path, "run `recsys policy-value` again", {"outcomes": dict})
            told = found["outcomes"]["clicks"][DEFAULT]
            row |= {"value": told["value"], "lists": found["lists"], "refused": told["refusals"]}
            row |= dict(zip(("low", "high"), told["interval"], strict=True))
        except NotJudged as refused:
            row["refused"] = [str(refused)]
        rows.append(row)
    return rows


def true_clicks(
    shop: Shop, model: Recommender, shown: pl.DataFrame, temperature: float, seed: int
) -> Float64s:
    """Expected clicks on the lists that a model would have drawn in the place of those shown.

    Args:
        shop: after the days of these lists.
        model: draws from all items of its catalogue, as `policy-value` has it.
        shown: of `Days.serve`, the lists of named users alone.
        temperature: of the Plackett-Luce draws.
        seed: of the draws.

    Returns:
        [lists] by request, in the order of `shown`.
    """
    rng, found, none = np.random.default_rng(seed), [], np.zeros(0, dtype=np.int32)
    rows = np.array([shop.row_of[model.item_id(row)] for row in range(model.num_items)])
    lists = shown.unique(Col.request, keep="first", maintain_order=True)
    for user, at, day in lists.select("shopper", Col.timestamp, "day").iter_rows():
        events = [(shop.ids[item], kind, then) for item, kind, then in shop.logs[user]]
        before = model.history([event for event in events if event[2] < at], now=at)
        (encoded,) = model.encode([before], whole=True)
        drawn = [
            model.draw(
                encoded, K, Exploration(number, temperature=temperature),
                exclude=none, allowed=None, exclude_owned=True,
            )[0]
            for number in rng.integers(2**63, size=DRAWS).tolist()
        ]  # fmt: skip
        items = rows[np.stack(drawn)]
        users = np.full(items.shape, user)
        position = np.broadcast_to(np.arange(1, K + 1), items.shape)
        chances = shop.shoppers.chances(users, items, position, shop.tastes[day])
        found.append(chances.click.sum(axis=1).mean())
    return np.array(found)
