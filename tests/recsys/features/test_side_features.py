"""Side features against loops over lists, on random histories full of ties."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import Shop
from tiny_logs import BUY, VIEW, Event

from recsys.config import target_codes
from recsys.data.histories import US_PER_DAY, Histories
from recsys.features.popularity import RECENT_DAYS, DailyCounts, ItemStats
from recsys.features.side_features import (
    DAYS_KEPT,
    HALF_LIVES_DAYS,
    ITEM_FEATURES,
    LAST_MOMENTS,
    MAX_ABSENCE_DAYS,
    OWN_FEATURES,
    FeaturesOverTime,
    PriceScale,
    is_recently_launched,
    item_features,
    own_items,
    usual_price,
)

HOUR = 3_600_000_000
NOW = 500 * 24
NUM_ITEMS = 4


def histories(*queries: list[Event]) -> Histories:
    """Queries of (hour, item, code), asked at hour `NOW`."""
    parts = [Histories.of([], [], [], 0)] if not queries else []
    parts += [
        Histories.of([e[1] for e in q], [e[2] for e in q], [e[0] * HOUR for e in q], NOW * HOUR)
        for q in queries
    ]
    lengths = [len(part.item_rows) for part in parts]
    return Histories(
        np.concatenate([part.item_rows for part in parts]),
        np.concatenate([part.event_codes for part in parts]),
        np.concatenate([part.timestamps for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([part.now for part in parts]),
    )


def by_hand(query: list[Event]) -> dict[int, dict[str, float]]:
    """Item -> its features, by loops."""
    moments = sorted({hour for hour, _, _ in query})
    of_item: dict[int, dict[int, set[int]]] = {}
    for hour, item, code in query:
        of_item.setdefault(item, {}).setdefault(hour, set()).add(code)
    expected = {}
    for item, met in sorted(of_item.items()):
        ages = [(NOW - hour) / 24 for hour in sorted(met)]
        absence = min(ages[-1], MAX_ABSENCE_DAYS)
        again = len(ages) > 1
        mean_gap = (ages[0] - ages[-1]) / (len(ages) - 1) if again else 0.0
        cycle = math.log((absence + 0.5) / (mean_gap + 0.5))
        expected[item] = {
            "log_num_targets": math.log1p(sum(BUY in codes for codes in met.values())),
            "log_num_others": math.log1p(sum(VIEW in codes for codes in met.values())),
            "log_days_since": math.log1p(absence),
            "in_last_moment": max(met) == moments[-1],
            "share_of_moments": len(met) / len(moments),
            "log_cycle": min(max(cycle, -4), 4) if again else 0.0,
            "has_cycle": again,
            "log_moments_since": math.log1p(sum(hour > max(met) for hour in moments)),
            "share_of_last_moments": sum(hour in moments[-LAST_MOMENTS:] for hour in met)
            / LAST_MOMENTS,
        } | {
            f"log_recent_{half_life:.0f}d": math.log1p(sum(2 ** (-age / half_life) for age in ages))
            for half_life in HALF_LIVES_DAYS
        }
    return expected


queries = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 24, 9_000, NOW - 24, NOW - 1]),
        st.integers(0, NUM_ITEMS - 1),
        st.sampled_from([VIEW, BUY]),
    ),
    max_size=12,
).map(sorted)


class TestOwnItems:
    @given(st.lists(queries, min_size=1, max_size=4))
    def test_agrees_with_counting_by_hand(self, batch: list[list[Event]]) -> None:
        own = own_items(histories(*batch), [BUY])
        expected = [
            (number, item, values)
            for number, query in enumerate(batch)
            for item, values in by_hand(query).items()
        ]
        assert own.query.tolist() == [number for number, _, _ in expected]
        assert own.item_rows.tolist() == [item for _, item, _ in expected]
        for column, name in enumerate(OWN_FEATURES):
            wanted = [float(values[name]) for _, _, values in expected]
            np.testing.assert_allclose(own.features[:, column], wanted, rtol=1e-4, atol=1e-4)

    @given(queries, st.integers(0, 99))
    def test_the_order_inside_a_moment_changes_nothing(self, query: list[Event], seed: int) -> None:
        shuffled = random.Random(seed).sample(query, len(query))
        shuffled.sort(key=lambda event: event[0])
        expected = own_items(histories(query), [BUY]).features
        found = own_items(histories(shuffled), [BUY]).features
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    def test_a_purchase_counts_although_the_item_was_viewed_at_the_same_time(self) -> None:
        own = own_items(histories([(5, 0, VIEW), (5, 0, BUY), (5, 0, BUY)]), [BUY])
        targets, others = own.features[0, :2]
        assert targets == others == pytest.approx(math.log(2))

    def test_nobody_owns_anything(self) -> None:
        for empty in (histories([], []), histories([])[1:]):
            own = own_items(empty, [BUY])
            assert own.features.shape == (0, len(OWN_FEATURES))

    def test_a_basket_does_not_see_itself(self, shop: Shop) -> None:
        """Features as of a basket are those of the events strictly before it, and nothing else."""
        codes = target_codes(shop.recipe)
        users, questions = shop.prepared.questions("test", codes)
        own = own_items(questions.histories, codes)
        for number in range(0, len(questions), 10):
            low, high = users.offsets[questions.user_index[number] :][:2]
            now = questions.histories.now[number]
            before = users.timestamps[low:high] < now
            alone = Histories.of(
                users.item_rows[low:high][before], users.event_codes[low:high][before],
                users.timestamps[low:high][before], now,
            )  # fmt: skip
            expected = own_items(alone, codes)
            mine = own.query == number
            assert own.item_rows[mine].tolist() == expected.item_rows.tolist()
            np.testing.assert_array_equal(own.features[mine], expected.features)


class TestPrices:
    def test_the_catalogues_log_prices_have_mean_0_and_deviation_1(self) -> None:
        prices = np.array([1, 5, 20, np.nan, 100], dtype=np.float32)
        standard = PriceScale.fit(prices).standard(prices)
        known = standard[[0, 1, 2, 4]]
        assert standard[3] == 0
        assert known.mean() == pytest.approx(0, abs=1e-6)
        assert known.std() == pytest.approx(1, abs=1e-6)
        assert (np.diff(known) > 0).all()

    def test_outliers_are_clipped(self) -> None:
        scale = PriceScale.fit(np.array([1, 2], dtype=np.float32))
        extreme = scale.standard(np.array([1e6, 1e9, -5], dtype=np.float32))
        assert extreme[0] == extreme[1] == -extreme[2] < 5

    @pytest.mark.parametrize("prices", [[], [np.nan], [3.0], [3.0, 3.0, np.nan]])
    def test_without_a_spread_there_is_no_division_by_it(self, prices: list[float]) -> None:
        table = np.array(prices, dtype=np.float32)
        assert PriceScale.fit(table).standard(table).tolist() == [0.0] * len(prices)

    def test_the_usual_price_is_the_mean_over_the_history(self) -> None:
        standard = np.array([1.0, -1.0, 0.5, 0.0], dtype=np.float32)
        asked = histories([(1, 0, BUY), (2, 0, VIEW), (3, 1, BUY)], [], [(1, 2, VIEW)])
        np.testing.assert_allclose(usual_price(asked, standard), [1 / 3, 0, 0.5], rtol=1e-6)


def test_item_features_are_popularity_novelty_price_and_faithfulness() -> None:
    stats = ItemStats(
        num_events=np.array([9, 0]),
        num_targets=np.array([6, 0]),
        num_recent=np.array([3, 0]),
        num_week=np.array([2, 0]),
        num_day=np.array([1, 0]),
        num_users=np.array([2, 0]),
        num_users_week=np.array([1, 0]),
        num_users_day=np.array([0, 0]),
    )
    found = item_features(stats, np.array([-2.0, 0.5], dtype=np.float32))
    expected = {
        "log_recent": [math.log(4), 0],
        "log_week": [math.log(3), 0],
        "log_day": [math.log(2), 0],
        "log_targets": [math.log(7), 0],
        "is_new": [0, 1],
        "price_squared": [4, 0.25],
        "log_per_buyer": [math.log(3), 0],
        "log_users_week": [math.log(2), 0],
        "log_users_day": [0, 0],
    }
    np.testing.assert_allclose(found.T, [expected[name] for name in ITEM_FEATURES], rtol=1e-6)


class TestFeaturesOverTime:
    #: Item 1 is bought on days 3, 4 and 9, item 0 on day 9 alone.
    COUNTS = DailyCounts(
        2,
        np.array([3, 4, 9, 9], dtype=np.int32),
        np.array([1, 1, 0, 1], dtype=np.int32),
        *(np.ones(4, dtype=np.int64) for _ in range(3)),
    )
    PRICES = (0.5, -2.0)

    def over_time(self, every_days: int = 1) -> FeaturesOverTime:
        return FeaturesOverTime(self.COUNTS, np.array(self.PRICES, dtype=np.float32), every_days)

    def test_a_question_sees_the_days_before_its_own(self) -> None:
        over_time = self.over_time()
        moments = np.array([9 * US_PER_DAY, 10 * US_PER_DAY - 1, 10 * US_PER_DAY])
        assert over_time.days(moments).tolist() == [9, 9, 10]
        bought = ITEM_FEATURES.index("log_targets")
        assert np.expm1(over_time.of(9)[:, bought]).round(4).tolist() == [0, 2]
        assert np.expm1(over_time.of(10)[:, bought]).round(4).tolist() == [1, 3]

    def test_it_counts_no_more_often_than_it_may(self) -> None:
        days = self.over_time(7).days(np.arange(21) * US_PER_DAY)
        assert days.tolist() == [0] * 7 + [7] * 7 + [14] * 7

    def test_in_any_order_of_days_it_tells_what_counting_by_hand_tells(self) -> None:
        """More days than it keeps, some of them twice."""
        over_time = self.over_time()
        for day in (*range(12), 3, 11, 0, 5, 4, 3, 40, 9):
            np.testing.assert_allclose(over_time.of(day), self.on_day_by_hand(day), rtol=1e-6)

    def test_what_it_keeps_is_bounded_and_goes_nowhere(self) -> None:
        over_time = self.over_time()
        assert over_time.of(5) is over_time.of(5)
        for day in range(3 * DAYS_KEPT):
            over_time.of(day)
        assert len(over_time._kept) == DAYS_KEPT
        assert not copy.copy(over_time)._kept
        more = replace(over_time, bytes_kept=(DAYS_KEPT + 2) * over_time.of(0).nbytes)
        for day in range(3 * DAYS_KEPT):
            more.of(day)
        assert len(more._kept) == DAYS_KEPT + 2
        assert copy.copy(more).bytes_kept == more.bytes_kept

    def on_day_by_hand(self, day: int) -> list[list[float]]:
        """[I, G] features by loops: of each bought item one event, target and buyer a day."""
        found = []
        for item in range(2):
            bought = [d for d, i in ((3, 1), (4, 1), (9, 0), (9, 1)) if i == item and d < day]
            recent, week, last = (
                math.log1p(sum(d >= day - days for d in bought)) for days in (RECENT_DAYS, 7, 1)
            )
            by_name = {
                "log_recent": recent, "log_targets": math.log1p(len(bought)),
                "is_new": not bought, "price_squared": self.PRICES[item] ** 2,
                "log_per_buyer": 0, "log_week": week, "log_day": last,
                "log_users_week": week, "log_users_day": last,
            }  # fmt: skip
            found.append([float(by_name[name]) for name in ITEM_FEATURES])
        return found


def test_young_is_what_was_first_wanted_in_the_last_days() -> None:
    features = np.zeros((4, len(ITEM_FEATURES)), dtype=np.float32)
    ever, recent = ITEM_FEATURES.index("log_targets"), ITEM_FEATURES.index("log_recent")
    features[:, ever], features[:, recent] = [0, 2, 2, 1], [0, 2, 1, 0]
    assert is_recently_launched(features).tolist() == [True, True, False, False]
