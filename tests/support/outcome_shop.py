"""A generated shop whose true probabilities are known: lists, what came of them, and heads."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundles import BRANDS, NUM_ITEMS, item_id, make_items
from shown_lists import START, ShownLists, event, shown

from recsys.config import Heads
from recsys.outcome_heads.fitting import fit_heads
from recsys.outcome_heads.served import ServedHeads

NUM_USERS, NUM_DAYS, LIST_SIZE = 120, 16, 10
#: Of those who clicked.
BUYS = 0.4
#: Just after the last night of the log.
NOW = int((START + dt.timedelta(days=NUM_DAYS)).timestamp() * 1e6)


def user(number: int) -> str:
    return f"shopper-{number:03d}"


class OutcomeShop:
    """Users click by their mood, the item's appeal and its brand's; some of them buy.

    Attributes:
        lists: the folder of the log, joined.
        heads: fitted on it.
    """

    def __init__(
        self, folder: Path, num_users: int = NUM_USERS, num_days: int = NUM_DAYS, epochs: int = 9
    ) -> None:
        rng = np.random.default_rng(3)
        self._mood = rng.normal(0, 0.8, num_users)
        brand = np.array([-0.7, 0.0, 0.7])[np.arange(NUM_ITEMS) % len(BRANDS)]
        self._appeal = brand + rng.normal(0, 0.4, NUM_ITEMS)
        self.lists = ShownLists(folder)
        rows: list[dict[str, Any]] = []
        events: list[dict[str, Any]] = []
        for day in range(num_days):
            for number in range(num_users):
                for visit in range(2):
                    request, hour = f"{day}-{number}-{visit}", 24 * day + rng.uniform(0, 12)
                    items = rng.choice(NUM_ITEMS, LIST_SIZE, replace=False)
                    names = map(item_id, items.tolist())
                    rows += shown(request, user(number), hour, *names, propensity=1.0)
                    clicked = items[rng.random(LIST_SIZE) < self.click(number, items)]
                    for row in clicked.tolist():
                        told = (request, user(number), item_id(row))
                        events.append(_came(*told, "click", hour + 0.1, dwell_ms=8000))
                        if rng.random() < BUYS:
                            events.append(_came(*told, "purchase", hour + 0.2, value=1.0 + row))
        self.lists.lists(rows)
        self.lists.live(events)
        self.lists.join()
        days = sorted(self.lists.out.glob("*.parquet"))
        torch.set_num_threads(1)  # small products: more threads wait for each other
        settings = Heads(epochs=epochs, learning_rate=4e-3, half_life_days=3)
        self.heads: ServedHeads = fit_heads(days, make_items(), settings, seed=5)

    def click(self, number: int, items: Any) -> Any:
        """The true probabilities that a user clicks items, by their rows, once they are shown."""
        return 1 / (1 + np.exp(1.5 - self._mood[number] - self._appeal[items]))


def _came(
    request: str, who: str, item: str, kind: str, hours: float, **more: Any
) -> dict[str, Any]:
    return event(who, item, kind, hours, request, **more)
