"""Side features as of a moment: user-item counts and recency, popularity, price.

Everything here is a function of a history strictly before `now` and of statistics fitted before the
cut, and is the same function in training, evaluation and service.

Legend: Q queries, E events, K (query, own item) pairs, I items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Float32s, Float64s, Int64s
from recsys.data.histories import US_PER_DAY, Histories
from recsys.features.popularity import CountsByDay, DailyCounts, ItemStats, last_count
from recsys.features.stacked import Stacked

HALF_LIVES_DAYS = (7.0, 30.0, 120.0)

#: A longer absence counts as this many days: logs hold too few to learn from.
MAX_ABSENCE_DAYS = 365.0

#: Columns of `OwnItems.features`.
OWN_FEATURES = (
    "log_num_targets",
    "log_num_others",
    "log_recent_7d",
    "log_recent_30d",
    "log_recent_120d",
    "log_days_since",
    "in_last_moment",
    "share_of_moments",
    "log_cycle",
    "has_cycle",
    "log_moments_since",
    "share_of_last_moments",
)

#: Moments that `share_of_last_moments` looks back on.
LAST_MOMENTS = 5

#: Columns of `item_features`.
ITEM_FEATURES = (
    "log_recent", "log_targets", "is_new", "price_squared", "log_per_buyer", "log_week", "log_day",
    "log_users_week", "log_users_day",
)  # fmt: skip


@dataclass(frozen=True)
class OwnItems:
    """Features of each user with each item of the own history.

    Attributes:
        query: [K] rising.
        item_rows: [K] rising within a query.
        features: [K, len(OWN_FEATURES)] float32.
    """

    query: Int64s
    item_rows: Int64s
    features: Float32s


def own_items(histories: Histories, target_codes: list[int]) -> OwnItems:
    """Counts, recency and repurchase cycle of every (query, item of its history).

    An item counts once a moment: once as a target event, once as any other. The cycle is the
    logarithm of the days since the item's last moment over the mean days between its moments: near
    0 the item is due again.
    """
    seen = histories.distinct
    if not len(seen.query):
        empty = np.zeros((0, len(OWN_FEATURES)), dtype=np.float32)
        return OwnItems(seen.query, seen.item, empty)
    first, last = seen.starts[:-1], seen.starts[1:] - 1
    age = (histories.now[seen.moment_query] - seen.moment_time) / US_PER_DAY
    age = age.astype(np.float32)
    since = seen.moments_after
    targets = sum(1 << code for code in target_codes)

    def total(values: NDArray[np.generic]) -> Float64s:
        return np.add.reduceat(values.astype(np.float64), first)

    latest = seen.latest
    decayed = [total(np.exp2(-age / half_life)[seen.moment]) for half_life in HALF_LIVES_DAYS]
    oldest_age, latest_age = age[seen.moment[first]].astype(np.float64), age[latest]
    newest_age = age[seen.moment_starts[1:] - 1][seen.query]
    num_moments = last - first + 1
    moments_of_query = np.diff(seen.moment_starts)[seen.query]
    has_cycle = num_moments >= 2
    mean_gap = np.where(has_cycle, (oldest_age - latest_age) / np.maximum(num_moments - 1, 1), 1.0)
    absence = np.minimum(latest_age.astype(np.float64), MAX_ABSENCE_DAYS)
    cycle = np.log((absence + 0.5) / (mean_gap + 0.5))
    columns = (
        np.log1p(total(seen.types & targets != 0)),
        np.log1p(total(seen.types & ~targets != 0)),
        *(np.log1p(value) for value in decayed),
        np.log1p(absence),
        latest_age <= newest_age,
        num_moments / moments_of_query,
        np.where(has_cycle, np.clip(cycle, -4, 4), 0.0),
        has_cycle,
        np.log1p(since[latest]),
        total((since < LAST_MOMENTS)[seen.moment]) / LAST_MOMENTS,
    )
    features = np.stack([np.asarray(column, dtype=np.float32) for column in columns], axis=1)
    return OwnItems(seen.query, seen.item, features)


@dataclass(frozen=True)
class PriceScale:
    """Mean and deviation of the catalogue's log prices."""

    mean: float
    deviation: float

    @staticmethod
    def fit(prices: Float32s) -> PriceScale:
        """The scale of some prices, NaN where unknown."""
        logs = _log_prices(prices)
        logs = logs[np.isfinite(logs)]
        if len(logs) < 2 or logs.std() == 0:
            return PriceScale(float(logs.mean()) if len(logs) else 0.0, 1.0)
        return PriceScale(float(logs.mean()), float(logs.std()))

    def standard(self, prices: Float32s) -> Float32s:
        """Log prices with mean 0 and deviation 1 over the catalogue; 0 where unknown."""
        scaled = (_log_prices(prices) - self.mean) / self.deviation
        return np.where(np.isfinite(scaled), np.clip(scaled, -2.5, 2.5), 0).astype(np.float32)


def _log_prices(prices: Float32s) -> Float64s:
    return np.log1p(np.maximum(prices.astype(np.float64), 0))


def item_features(stats: ItemStats, standard_price: Float32s) -> Float32s:
    """[I, len(ITEM_FEATURES)] user-independent features of the items."""
    columns = (
        np.log1p(stats.num_recent),
        np.log1p(stats.num_targets),
        stats.num_events == 0,
        standard_price.astype(np.float64) ** 2,
        np.log(np.maximum(stats.num_targets, 1) / np.maximum(stats.num_users, 1)),
        np.log1p(stats.num_week),
        np.log1p(stats.num_day),
        np.log1p(stats.num_users_week),
        np.log1p(stats.num_users_day),
    )
    return np.stack([np.asarray(column, dtype=np.float32) for column in columns], axis=1)


def is_recently_launched(features: Any) -> Any:
    """[...] whether all target events of an item, if any, lie in the last `RECENT_DAYS` days.

    Args:
        features: [..., len(ITEM_FEATURES)], an array or a tensor.
    """
    recent, ever = (ITEM_FEATURES.index(name) for name in ("log_recent", "log_targets"))
    return features[..., recent] >= features[..., ever]


#: Days whose features are cached; queries come in the order of time.
DAYS_KEPT = 4


@dataclass
class FeaturesOverTime:
    """User-independent item features over time, as in a service that recounts every few days.

    Attributes:
        counts: of every day; a query reads only the days before its own.
        standard_price: [I].
        every_days: days between two counts.
        bytes_kept: features of more days are cached, up to so many bytes: for queries that go
            through the same days again and again.
    """

    counts: DailyCounts
    standard_price: Float32s
    every_days: int
    bytes_kept: int = 0

    def __post_init__(self) -> None:
        self._by_day = CountsByDay(self.counts)
        self._kept: dict[int, Float32s] = {}

    def days(self, now: Int64s) -> Int64s:
        """[Q] the day at whose start each query's features were counted."""
        return last_count(now, self.every_days)

    def of(self, day: int) -> Float32s:
        """[I, len(ITEM_FEATURES)] features as of the start of a day."""
        found = self._kept.get(day)
        if found is None:
            found = item_features(self._by_day.as_of(day), self.standard_price)
            most = max(DAYS_KEPT, self.bytes_kept // max(1, found.nbytes))
            while len(self._kept) >= most:
                self._kept.pop(next(iter(self._kept)))
            self._kept[day] = found
        return found

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        kept = (self.counts, self.standard_price, self.every_days, self.bytes_kept)
        return FeaturesOverTime, kept


def usual_price(histories: Histories, standard_price: Float32s | Stacked) -> Float32s:
    """[Q] mean standard price of the items in each history, 0 if it is empty."""
    sums = np.bincount(
        histories.query_of_event, standard_price[histories.item_rows], minlength=len(histories)
    )
    return (sums / np.maximum(histories.lengths, 1)).astype(np.float32)
