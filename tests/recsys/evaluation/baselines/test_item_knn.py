from __future__ import annotations

import numpy as np
import pytest
from tiny_logs import BUY, VIEW, bought, queries, user_events

from recsys.evaluation.baselines import ItemKnn, TrainingLog


def test_similarity_is_the_cosine_over_windows() -> None:
    # Windows of two moments: {0, 1}, {0}, {0, 2}, {1}.
    log = user_events(bought([0], [1], [0]), bought([0], [2], [1]))
    similarity = ItemKnn.fit(TrainingLog(log, 3, [BUY]), window=2, shrinkage=0).similarity.toarray()
    assert similarity[0, 1] == similarity[1, 0] == pytest.approx(1 / np.sqrt(3 * 2))
    assert similarity[0, 2] == similarity[2, 0] == pytest.approx(1 / np.sqrt(3))
    assert similarity[1, 2] == 0


def test_an_item_resembles_itself_as_far_as_its_users_come_back() -> None:
    log = user_events(bought([0], [1], [0]), bought([0, 0], [2], [1]), bought([0], [0], [0]))
    similarity = ItemKnn.fit(TrainingLog(log, 3, [BUY])).similarity.toarray()
    np.testing.assert_allclose(np.diag(similarity), [2 / 3, 0, 0])


def test_views_lead_to_purchases_not_the_other_way() -> None:
    log = user_events([(1, 0, VIEW), (2, 1, BUY)])
    similarity = ItemKnn.fit(TrainingLog(log, 2, [BUY]), shrinkage=1).similarity.toarray()
    assert similarity.tolist() == [[0, 0.5], [0, 0]]


def test_scores_decay_by_moment() -> None:
    log = user_events(bought([0, 2]), bought([1, 3]))
    model = ItemKnn.fit(TrainingLog(log, 5, [BUY]), shrinkage=0, decay=0.5)
    scores = model.scores(queries(bought([0], [1], [4])))[0]
    np.testing.assert_allclose(scores[[2, 3]], [0.25, 0.5])
    assert (scores[[0, 1, 4]] < 0).all()


def test_history_is_cut_between_moments() -> None:
    log = user_events(bought([0, 2]), bought([1, 3]))
    model = ItemKnn.fit(TrainingLog(log, 5, [BUY]), shrinkage=0, max_history=1)
    scores = model.scores(queries(bought([0], [1]), bought([0, 1])))
    assert scores[0, 3] > 0 > scores[0, 2]
    assert scores[1, 3] == scores[1, 2] > 0
