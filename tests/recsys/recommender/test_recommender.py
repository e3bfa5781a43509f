"""A loaded bundle answers: lists and scores of its own catalogue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import NUM_ITEMS, SOLD_OUT, item_id
from recommenders import HISTORY, ITEMS, NEWCOMER, recommend
from tiny_logs import BUY

from recsys.artifacts.bundle import Bundle
from recsys.data.histories import Histories
from recsys.recommender import Recommender
from recsys.schema import Col


class TestRecommend:
    def test_the_best_come_first_and_the_sold_out_not_at_all(
        self, recommender: Recommender
    ) -> None:
        rows, scores = recommend(recommender, HISTORY, 1_000)
        sold_out = recommender.rows_of([SOLD_OUT])[0]
        assert sorted(rows) == [row for row in range(NUM_ITEMS) if row != sold_out]
        assert (np.diff(scores) <= 0).all()
        top, top_scores = recommend(recommender, HISTORY, 7)
        assert top == rows[:7]
        np.testing.assert_array_equal(top_scores, scores[:7])

    @pytest.mark.parametrize("history", [HISTORY, NEWCOMER])
    def test_an_item_ranks_with_the_score_it_is_recommended_with(
        self, recommender: Recommender, history: Histories
    ) -> None:
        rows, scores = recommend(recommender, history, NUM_ITEMS)
        order = np.random.default_rng(0).permutation(len(rows))
        ranked = recommender.rank(history, np.array(rows, dtype=np.int32)[order])
        np.testing.assert_allclose(ranked, scores[order], atol=1e-4)

    def test_excluded_items_stay_out_and_unknown_ones_do_no_harm(
        self, recommender: Recommender
    ) -> None:
        rows, _ = recommend(recommender, HISTORY, 5)
        without, _ = recommend(recommender, HISTORY, 5, exclude=[rows[0], -1, rows[2]])
        assert without[:3] == [rows[1], rows[3], rows[4]]
        assert recommender.rows_of([SOLD_OUT, "nobody's"])[1] == -1

    def test_events_of_unknown_items_are_as_if_they_had_not_been(
        self, recommender: Recommender
    ) -> None:
        more = Histories.of([3, -1, 5, 3, 40, NUM_ITEMS], [BUY] * 6, [10, 15, 20, 30, 30, 50], 100)
        rows, scores = recommend(recommender, HISTORY, 9)
        again, same = recommend(recommender, more, 9)
        assert again == rows
        np.testing.assert_array_equal(same, scores)
        some = np.array(rows, dtype=np.int32)
        np.testing.assert_array_equal(recommender.rank(more, some), recommender.rank(HISTORY, some))


def test_what_the_service_tells_of_a_model(recommender: Recommender, folder: Path) -> None:
    assert recommender.info["version"] == Bundle.open(folder).version == recommender.version
    assert not {"files", "recipe", "seal"} & set(recommender.info)
    assert recommender.item_id(0) == item_id(0)
    assert recommender.title(0) == ITEMS[Col.title][0]
    assert recommender.num_items == NUM_ITEMS
    assert torch.is_tensor(recommender.scorer.item_part)
