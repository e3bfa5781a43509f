"""What is compared: the quantities, and the bins of each.

All are counted by event or by visit, so a window of a day can lie beside one of four weeks. A visit
is all that a user does on one UTC day.

Legend: I items, N values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.arrays import Float64s, Int32s, Int64s
from recsys.features.popularity import DailyCounts
from recsys.preparation.prepared import Prepared
from recsys.schema import EVENT_TYPES, Col

#: An item counts as new for so many days from its first event on.
NEW_DAYS: Final = 7
#: Bins of a quantity that has no fixed ones: those of equal mass in the reference.
NUM_QUANTILES: Final = 10
#: Names with a bin of their own: the most frequent in the reference.
NUM_NAMES: Final = 20


@dataclass(frozen=True)
class Quantity:
    """One quantity.

    Attributes:
        kind: `distribution` is judged by the PSI, `share` by its change, `ratio` by how far it is
            from 1.
        unit: what is counted.
        text: what it is.
        edges: where the bins begin, but for the first; None: quantiles of the reference.
    """

    kind: Literal["distribution", "share", "ratio"]
    unit: Literal["event", "visit", "exposure", "place"]
    text: str
    edges: tuple[float, ...] | None = None


EVENT_MIX, CATEGORY, PRICE, TEXT_LENGTH = "event_mix", "category", "price", "text_length"
NEW_ITEMS, NEW_USERS, CTR, TOP_SCORE = "new_items", "new_users", "ctr", "top_score"
PROMISED = "clicks_per_promised_click"
ITEM_AGE, EVENTS, AWAY = "item_age_days", "events_per_visit", "days_since_visit"

#: Those that tell of what came before the window.
NEED_A_PAST: Final = {NEW_ITEMS, NEW_USERS, ITEM_AGE, AWAY}

QUANTITIES: Final = {
    EVENT_MIX: Quantity("distribution", "event", "type of the event"),
    CATEGORY: Quantity("distribution", "event", "category of the event's item"),
    PRICE: Quantity("distribution", "event", "price of the event's item"),
    TEXT_LENGTH: Quantity("distribution", "event", "characters of the item's text"),
    ITEM_AGE: Quantity(
        "distribution", "event", "days since the item's first event", (1, 3, 7, 14, 28)
    ),
    EVENTS: Quantity("distribution", "visit", "events of the visit", (2, 3, 5, 10, 20, 50)),
    AWAY: Quantity("distribution", "visit", "days since the user's last visit", (2, 4, 8, 15, 29)),
    TOP_SCORE: Quantity("distribution", "place", "scores of the best ten at sampled visits"),
    NEW_ITEMS: Quantity("share", "event", f"items in the first {NEW_DAYS} days of their events"),
    NEW_USERS: Quantity("share", "visit", "users without an earlier event"),
    CTR: Quantity("share", "exposure", "clicked exposures"),
    PROMISED: Quantity("ratio", "exposure", "clicks per click that the outcome heads promised"),
}


@dataclass(frozen=True)
class Bins:
    """The bins of a number: below the first edge, from each edge on, and one for unknown.

    Attributes:
        edges: rising.
        names: of names in the place of numbers, see `codes`: those of all bins but the last.
    """

    edges: tuple[float, ...]
    names: tuple[str, ...] = ()

    @property
    def labels(self) -> list[str]:
        """Of all bins."""
        if self.names:
            return [*self.names, "unknown"]
        told = [f"{edge:.6g}" for edge in self.edges]
        pairs = [f"{low} to {high}" for low, high in zip(told, told[1:], strict=False)]
        first, last = (f"< {told[0]}", f">= {told[-1]}") if told else ("any", "")
        return [first, *pairs, *([last] if last else []), "unknown"]

    def of(self, values: NDArray[Any]) -> Int64s:
        """[N] the bin of each value; NaN is unknown."""
        found = np.searchsorted(np.asarray(self.edges), values, side="right")
        return np.where(np.isnan(values), len(self.edges) + 1, found).astype(np.int64)

    def codes(self, names: pl.Series) -> Float64s:
        """[N] the number of each name; those without one share the last, null is NaN."""
        numbers = {name: float(number) for number, name in enumerate(self.names[:-1])}
        found = names.replace_strict(
            numbers, default=float(len(numbers)), return_dtype=pl.Float64
        )  # fmt: skip
        return np.where(names.is_null(), np.nan, found.to_numpy())

    @staticmethod
    def of_names(names: pl.Series, weights: NDArray[Any]) -> Bins:
        """A bin for each of the most frequent names, and one for all others.

        Args:
            names: [N], null where unknown.
            weights: [N] rows of each.
        """
        rows = (
            pl.DataFrame({"name": names, "rows": weights}).drop_nulls().filter(pl.col("rows") > 0)
        )
        sums = rows.group_by("name").agg(pl.col("rows").sum())
        most = sums.sort("rows", "name", descending=[True, False])["name"].head(NUM_NAMES)
        edges = tuple(float(number) for number in range(1, len(most) + 1))
        return Bins(edges, (*most.to_list(), "others"))

    @staticmethod
    def of_mass(values: NDArray[Any], weights: NDArray[Any]) -> Bins:
        """Bins of about equal mass.

        Args:
            values: [N], NaN where unknown.
            weights: [N] rows of each value.
        """
        known = ~np.isnan(values) & (weights > 0)
        distinct, position = np.unique(values[known], return_inverse=True)
        below = np.cumsum(np.bincount(position, weights[known], minlength=len(distinct)))
        if not len(distinct):
            return Bins(())
        cuts = np.arange(1, NUM_QUANTILES) / NUM_QUANTILES * below[-1]
        places = np.unique(np.searchsorted(below, cuts, side="right"))
        inside = places[(places > 0) & (places < len(distinct))]
        return Bins(tuple(float(edge) for edge in distinct[inside]))


@dataclass(frozen=True)
class ItemFacts:
    """What the quantities ask of the items.

    Attributes:
        categories: [I] null where unknown.
        prices: [I] NaN where unknown.
        text_lengths: [I] characters.
        first_days: [I] int32 day of the first event; the largest number: none yet.
    """

    categories: pl.Series
    prices: Float64s
    text_lengths: Float64s
    first_days: Int32s

    @staticmethod
    def of(prepared: Prepared, counts: DailyCounts) -> ItemFacts:
        """The facts of a prepared catalogue."""
        catalogue = prepared.catalogue
        lengths = catalogue.texts[Col.text].str.len_chars().cast(pl.Float64).to_numpy()
        first = np.full(catalogue.num_items, np.iinfo(np.int32).max, dtype=np.int32)
        np.minimum.at(first, counts.item_rows, counts.days)
        categories, prices = catalogue.items[Col.category], catalogue.prices.astype(np.float64)
        return ItemFacts(categories, prices, lengths[catalogue.text_rows], first)

    def binned(self, bins: dict[str, Bins]) -> BinnedItems:
        """The bin of each item, in few bytes."""
        found = {
            CATEGORY: bins[CATEGORY].of(bins[CATEGORY].codes(self.categories)),
            PRICE: bins[PRICE].of(self.prices),
            TEXT_LENGTH: bins[TEXT_LENGTH].of(self.text_lengths),
        }
        return BinnedItems({n: each.astype(np.uint8) for n, each in found.items()}, self.first_days)


@dataclass(frozen=True)
class BinnedItems:
    """What a task asks of the items.

    Attributes:
        bins: quantity -> [I] bin.
        first_days: see `ItemFacts`.
    """

    bins: dict[str, NDArray[np.uint8]]
    first_days: Int32s


def fixed_bins() -> dict[str, Bins]:
    """The bins that do not depend on the reference."""
    return {name: Bins(each.edges) for name, each in QUANTITIES.items() if each.edges}


def labels_of(name: str, bins: dict[str, Bins]) -> Sequence[str]:
    """What the bins of a quantity hold."""
    if QUANTITIES[name].kind == "share":
        return ("without", "with")
    return EVENT_TYPES if name == EVENT_MIX else bins[name].labels
