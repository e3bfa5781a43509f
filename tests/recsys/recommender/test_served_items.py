"""Filters hold for everything that comes back."""

from __future__ import annotations

import numpy as np
from bundles import BRANDS, NUM_ITEMS, SOLD_OUT, THINGS
from recommenders import HISTORY, ITEMS, recommend

from recsys.recommender import Recommender
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
