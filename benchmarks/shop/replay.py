"""What another bundle would truly have earned on lists that were shown: the generator knows."""

from __future__ import annotations

import numpy as np
import polars as pl

from benchmarks.shop.visits import K, Shop
from recsys.arrays import Float64s
from recsys.ranking.exploration import Exploration
from recsys.recommender.by_id import Recommender
from recsys.schema import Col

#: Lists that are drawn for each that was shown.
DRAWS = 8


def true_clicks(
    shop: Shop, model: Recommender, shown: pl.DataFrame, temperature: float, seed: int
) -> Float64s:
    """Expected clicks on the lists that a model would have drawn in the place of those shown.

    Args:
        shop: after the days of these lists.
        model: whose catalogue holds all items that were sold then.
        shown: of `Days.serve`, the lists of named users alone.
        temperature: of the Plackett-Luce draws.
        seed: of the draws.

    Returns:
        [lists] by request, in the order of `shown`.
    """
    rng, found = np.random.default_rng(seed), []
    rows = np.array([shop.row_of[model.item_id(row)] for row in range(model.num_items)])
    lists = shown.unique(Col.request, keep="first", maintain_order=True)
    for user, at, day in lists.select("shopper", Col.timestamp, "day").iter_rows():
        events = [(shop.ids[item], kind, then) for item, kind, then in shop.logs[user]]
        before = model.history([event for event in events if event[2] < at], now=at)
        (encoded,) = model.encode([before], whole=True)
        sold = shop.shoppers.catalogue.born[rows] <= day
        drawn = []
        for number in rng.integers(2**63, size=DRAWS).tolist():
            exploration = Exploration(number, temperature=temperature)
            none = np.zeros(0, dtype=np.int32)
            found_rows, _, _ = model.draw(
                encoded, K, exploration, exclude=none, allowed=sold, exclude_owned=True
            )
            drawn.append(found_rows)
        items = rows[np.stack(drawn)]
        users = np.full(items.shape, user)
        position = np.broadcast_to(np.arange(1, K + 1), items.shape)
        chances = shop.shoppers.chances(users, items, position, shop.tastes[day])
        found.append(chances.click.sum(axis=1).mean())
    return np.array(found)
