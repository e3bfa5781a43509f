"""Filters hold for everything that comes back."""

from __future__ import annotations

import numpy as np
from bundles import BRANDS, NUM_ITEMS, SOLD_OUT, THINGS, item_id
from recommenders import HISTORY, ITEMS, recommend

from recsys.ranking.rerank import NO_CATEGORY
from recsys.recommender import Recommender
from recsys.schema import ITEMS as SCHEMA
from recsys.schema import Col


class TestFilters:
    def test_they_hold_for_everything_that_comes_back(self, recommender: Recommender) -> None:
        rows, _ = recommend(
            recommender, HISTORY, NUM_ITEMS, category=[THINGS[0], THINGS[1]], brand=[BRANDS[2]],
            min_price=20, max_price=200,
        )  # fmt: skip
        found = ITEMS[rows]
        wanted = ITEMS.filter(
            ITEMS[Col.category].is_in(THINGS[:2]),
            ITEMS[Col.brand] == BRANDS[2],
            ITEMS[Col.price].is_between(20, 200),
            ITEMS[Col.available],
        )
        assert set(found[Col.item]) == set(wanted[Col.item])
        assert 0 < len(rows) < NUM_ITEMS

    def test_an_item_without_a_price_passes_no_price_filter(self, recommender: Recommender) -> None:
        unknown = np.flatnonzero(ITEMS[Col.price].is_null())
        for bound in ({"min_price": 0.0}, {"max_price": 1e9}):
            allowed = recommender.allowed(**bound)
            assert allowed is not None
            assert not allowed[unknown].any()
            assert allowed.sum() == NUM_ITEMS - len(unknown) - 1  # the sold-out one

    def test_no_filter_passes_all_but_the_sold_out(self, recommender: Recommender) -> None:
        allowed = recommender.allowed()
        assert allowed is not None
        assert np.flatnonzero(~allowed).tolist() == recommender.rows_of([SOLD_OUT]).tolist()

    def test_nothing_allowed_gives_nothing(self, recommender: Recommender) -> None:
        for filters in ({"category": []}, {"brand": ["unheard of"]}, {"min_price": 1e9}):
            assert recommend(recommender, HISTORY, 5, **filters)[0] == []


class TestChanges:
    def test_filters_and_titles_follow_and_what_was_before_stays(
        self, recommender: Recommender
    ) -> None:
        items = recommender.items
        changed = items.with_changes(
            {
                item_id(3): {Col.price: 5000.0, Col.title: "now a lamp"},
                item_id(4): {Col.category: None, Col.available: False},
                "nobody's": {Col.price: 1.0},
            }
        )
        dear = changed.allowed(min_price=4000.0)
        assert dear is not None and np.flatnonzero(dear).tolist() == [3]
        assert changed.title(3) == "now a lamp"
        available = changed.allowed()
        assert available is not None and not available[4]
        assert changed.category_codes[4] == NO_CATEGORY
        assert items.title(3) == ITEMS[Col.title][3]
        assert items.category_codes[4] != NO_CATEGORY
        before = items.allowed(min_price=4000.0)
        assert before is not None and not before.any()

    def test_nothing_changed_is_the_same(self, recommender: Recommender) -> None:
        assert recommender.items.with_changes({"nobody's": {Col.price: 1.0}}) is recommender.items
        assert recommender.with_changes({}) is recommender

    def test_the_bundle_s_own_fields_stay_readable(self, recommender: Recommender) -> None:
        changed = recommender.with_changes({item_id(3): {Col.price: 5000.0}})
        own = changed.fields_in_bundle(item_id(3))
        assert own == ITEMS.row(3, named=True)
        assert set(own) == set(SCHEMA.names)
