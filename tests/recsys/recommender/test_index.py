"""With an index the same lists come back, from a part of the catalogue."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from bundles import BRANDS, NUM_ITEMS, THINGS
from recommenders import HISTORY, ITEMS, NEWCOMER, recommend

from recsys.data.histories import Histories
from recsys.recommender import Recommender
from recsys.schema import Col

WithCells = Callable[[int], Recommender]


class TestIndex:
    """With an index, on its own bundle: the service picks from a part of the catalogue."""

    @pytest.mark.parametrize("history", [HISTORY, NEWCOMER])
    @pytest.mark.parametrize("k", [1, 7, 40])
    def test_where_all_cells_are_read_nothing_changes(
        self, recommender: Recommender, with_cells: WithCells, history: Histories, k: int
    ) -> None:
        everything = with_cells(NUM_ITEMS)
        best = recommend(recommender, history, 3)[0]
        for how in (
            {}, {"exclude": best}, {"category": [THINGS[0]], "min_price": 20.0}, {"exclude": [-1]},
        ):  # fmt: skip
            rows, scores = recommend(recommender, history, k, **how)
            found, its = recommend(everything, history, k, **how)
            assert found == rows
            np.testing.assert_allclose(its, scores, rtol=1e-5, atol=1e-5)

    def test_owned_items_and_variety(self, recommender: Recommender, with_cells: WithCells) -> None:
        everything, none = with_cells(NUM_ITEMS), np.zeros(0, dtype=np.int32)
        for how in ({"exclude_owned": True}, {"diversity": 0.5}, {"max_per_category": 2}):
            rows, _ = recommender.recommend(HISTORY, 8, exclude=none, allowed=None, **how)
            found, _ = everything.recommend(HISTORY, 8, exclude=none, allowed=None, **how)
            assert found.tolist() == rows.tolist()

    @pytest.mark.parametrize("num_probed", [1, 5])
    def test_where_few_are_read_scores_and_rules_still_hold(
        self, recommender: Recommender, with_cells: WithCells, num_probed: int
    ) -> None:
        few = with_cells(num_probed)
        barred = recommend(few, HISTORY, 3)[0]
        for k in (5, 60, NUM_ITEMS):
            rows, scores = recommend(few, HISTORY, k, exclude=barred, brand=[BRANDS[1]])
            assert len(rows) == min(k, len(recommend(recommender, HISTORY, k, exclude=barred,
                                                     brand=[BRANDS[1]])[0]))  # fmt: skip
            assert not set(rows) & set(barred)
            assert set(ITEMS[rows][Col.brand]) == {BRANDS[1]}
            ranked = recommender.rank(HISTORY, np.array(rows, dtype=np.int32))
            np.testing.assert_allclose(ranked, scores, atol=1e-4)
