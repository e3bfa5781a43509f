"""Bins of numbers and of names, and what is counted of a few users by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
from event_lists import BUY, VIEW, Event, build

from recsys.data.histories import US_PER_DAY
from recsys.drift.measuring import Window, count_users
from recsys.drift.quantities import (
    CATEGORY,
    NUM_NAMES,
    PRICE,
    TEXT_LENGTH,
    Bins,
    ItemFacts,
    fixed_bins,
    labels_of,
)

NAN = float("nan")


def test_bins_of_numbers() -> None:
    bins = Bins((1.0, 2.5))
    assert bins.labels == ["< 1", "1 to 2.5", ">= 2.5", "unknown"]
    assert bins.of(np.array([0, 1, 2, 2.5, 9, NAN])).tolist() == [0, 1, 1, 2, 2, 3]
    assert Bins(()).labels == ["any", "unknown"] and Bins(()).of(np.array([5, NAN])).tolist() == [
        0,
        1,
    ]


def test_bins_of_mass_are_about_equal() -> None:
    values, weights = np.append(np.arange(100.0), NAN), np.append(np.ones(100), 50)
    counts = np.bincount(Bins.of_mass(values, weights).of(values))
    assert counts.tolist() == [10] * 10 + [1]
    heavy = Bins.of_mass(np.array([1.0, 2.0, 3.0]), np.array([1, 98, 1]))
    assert len(heavy.edges) <= 2 and Bins.of_mass(np.array([NAN]), np.ones(1)) == Bins(())
    assert Bins.of_mass(np.array([4.0]), np.ones(1)).edges == ()


def test_bins_of_names() -> None:
    names = pl.Series([f"n{number}" for number in range(30)] + [None])
    bins = Bins.of_names(names, np.append(np.arange(30, 0, -1), 100))
    assert bins.labels == [*(f"n{number}" for number in range(NUM_NAMES)), "others", "unknown"]
    found = bins.of(bins.codes(pl.Series(["n1", "n29", "never seen", None])))
    assert found.tolist() == [1, NUM_NAMES, NUM_NAMES, NUM_NAMES + 1]
    none = Bins.of_names(pl.Series([None], dtype=pl.String), np.ones(1))
    assert none.of(none.codes(pl.Series(["any", None]))).tolist() == [0, 1]


def test_counts_by_hand() -> None:
    """Two users; the window is days 10 and 11."""

    def event(user: str, day: float, item: int, code: int) -> Event:
        return Event(user, int(day * US_PER_DAY), None, item, code)

    users = build(
        [event("a", 2, 0, VIEW), event("a", 10.1, 0, VIEW), event("a", 10.2, 1, BUY),
         event("a", 11.5, 1, VIEW), event("b", 11.1, 1, VIEW), event("b", 12, 0, BUY)]
    )  # fmt: skip
    facts = ItemFacts(
        pl.Series(["cups", None]), np.array([5.0, NAN]), np.array([10.0, 20.0]), np.array([2, 10])
    )
    bins = fixed_bins() | {
        CATEGORY: Bins.of_names(facts.categories, np.ones(2)), PRICE: Bins((4.0,)),
        TEXT_LENGTH: Bins((15.0,)),
    }  # fmt: skip
    counts = count_users(users, Window(10, 2), bins, facts.binned(bins))
    told = {
        name: {
            label: int(n) for label, n in zip(labels_of(name, bins), each.values, strict=True) if n
        }
        for name, each in counts.items()
    }
    assert told == {
        "event_mix": {"view": 3, "purchase": 1},
        "category": {"cups": 1, "unknown": 3},
        "price": {">= 4": 1, "unknown": 3},
        "text_length": {"< 15": 1, ">= 15": 3},
        "item_age_days": {"< 1": 1, "1 to 3": 2, "7 to 14": 1},
        "new_items": {"without": 1, "with": 3},
        "events_per_visit": {"< 2": 2, "2 to 3": 1},
        "days_since_visit": {"< 2": 1, "8 to 15": 1, "unknown": 1},
        "new_users": {"without": 2, "with": 1},
    }
    assert counts["event_mix"].by_day.sum(axis=1).tolist() == [2, 2]
    assert all(each.num_users == 2 for each in counts.values())
