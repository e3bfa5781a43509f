"""A generated shop that stays what it is, or changes on a day: users come and go, so do items."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from recsys.config import Drift
from recsys.data.histories import US_PER_DAY, UserEvents
from recsys.drift.counts import Counts
from recsys.drift.findings import findings
from recsys.drift.measuring import Window, count_users
from recsys.drift.quantities import CATEGORY, CTR, PRICE, TEXT_LENGTH, Bins, ItemFacts, fixed_bins
from recsys.drift.reference import Reference
from recsys.evaluation.metrics.ratio import Ratio

#: Days before which the shop is not yet what it stays, and of the reference after them.
WARM_UP, THEN = 45, 28
ITEMS_A_DAY = 20
#: Chances of a view, a cart and a purchase.
MIX = (0.7, 0.2, 0.1)


def facts(num_days: int, rng: np.random.Generator, dear_from: int | None = None) -> ItemFacts:
    """Items, so many more each day; from a day on the new ones cost thrice as much."""
    born = np.repeat(np.arange(num_days, dtype=np.int32), ITEMS_A_DAY)
    prices = rng.lognormal(2, 1, len(born))
    if dear_from is not None:
        prices[born >= dear_from] *= 3
    prices[rng.random(len(born)) < 0.1] = np.nan
    categories = pl.Series([f"shelf {number % 7}" if number % 7 else None for number in born])
    return ItemFacts(categories, prices, rng.integers(10, 80, len(born)).astype(float), born)


def shop(
    num_days: int, rng: np.random.Generator, *, users_a_day: int = 20, mix_from: int | None = None
) -> UserEvents:
    """Users stay for 40 days, come each third of them, and have tastes of their own.

    Args:
        num_days: from the shop's first on.
        rng: draws.
        users_a_day: new ones.
        mix_from: from this day on, half of the views are purchases.
    """
    num_users = users_a_day * num_days
    arrival = rng.integers(0, num_days, num_users)
    comes = rng.random((num_users, 40)) < 1 / 3
    comes[:, 0] = True
    user, after = np.nonzero(comes)
    day = arrival[user] + after
    user, day = user[day < num_days], day[day < num_days]
    num_events = rng.poisson(rng.gamma(2, 1.5, num_users)[user]) + 1
    taste = rng.dirichlet(np.array(MIX) * 5, num_users)
    user, day = np.repeat(user, num_events), np.repeat(day, num_events)
    drawn = rng.random((len(user), 1)) > taste.cumsum(axis=1)[user]
    code = np.array([1, 3, 4])[np.minimum(drawn.sum(axis=1), 2)]
    if mix_from is not None:
        code[(day >= mix_from) & (code == 1) & (rng.random(len(code)) < 0.5)] = 4
    age = np.minimum(rng.geometric(0.1, len(user)) - 1, day)
    item = (day - age) * ITEMS_A_DAY + rng.integers(0, ITEMS_A_DAY, len(user))
    at = day * US_PER_DAY + rng.integers(0, US_PER_DAY, len(user))
    order = np.lexsort((at, user))
    distinct, counts = np.unique(user, return_counts=True)
    return UserEvents(
        [str(each) for each in distinct], item[order].astype(np.int32),
        code[order].astype(np.int8), at[order], np.zeros(len(order), np.int32),
        np.append(0, np.cumsum(counts)),
    )  # fmt: skip


def reference_of(users: UserEvents, known: ItemFacts, first: int = WARM_UP) -> Reference:
    """The counts of four weeks."""
    window = Window(first, THEN)
    every = np.ones(len(known.prices))
    bins = fixed_bins() | {
        CATEGORY: Bins.of_names(known.categories, every),
        PRICE: Bins.of_mass(known.prices, every),
        TEXT_LENGTH: Bins.of_mass(known.text_lengths, every),
    }
    return Reference(window, count_users(users, window, bins, known.binned(bins)), bins)


def stable_night() -> dict[str, Any]:
    """The findings of a night on which nothing has drifted, clicks among them, as promised."""
    rng, tonight = np.random.default_rng(0), WARM_UP + THEN
    users, known = shop(tonight + 1, rng), facts(tonight + 1, rng)
    then, window = reference_of(users, known), Window(tonight, 1)
    now = count_users(users, window, then.bins, known.binned(then.bins))
    then.counts[CTR], now[CTR] = clicks(0.2, 8000, 28), clicks(0.2, 2000, 1)
    return findings("tiny-1", then, window, now, Drift(), Ratio(0.98, 0.02, 0.3, 900))


def clicks(share: float, num_users: int, num_days: int) -> Counts:
    """An exposure a user, so many of them clicked."""
    bins = (np.arange(num_users) < share * num_users).astype(int)
    return Counts.of(np.arange(num_users) % num_days, bins, np.arange(num_users), num_days, 2)


def of(found: dict[str, Any], name: str) -> dict[str, Any]:
    """One quantity of the findings."""
    (told,) = (each for each in found["quantities"] if each["name"] == name)
    return dict(told)
