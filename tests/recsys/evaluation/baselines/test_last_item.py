from __future__ import annotations

import numpy as np
import pytest
from tiny_logs import BUY, VIEW, bought, queries, user_events

from recsys.evaluation.baselines import LastItem, TrainingLog


def test_transitions_run_from_a_moment_to_the_users_next() -> None:
    log = user_events(bought([0], [1, 2], [1]), bought([0], [2]))
    model = LastItem.fit(TrainingLog(log, 4, [BUY]), shrinkage=0)
    expected = [[0, 0.5, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert model.transitions.toarray().tolist() == expected


def test_shrinkage_quietens_rare_items() -> None:
    model = LastItem.fit(TrainingLog(user_events(bought([0], [1])), 2, [BUY]), shrinkage=3)
    assert model.transitions.toarray().tolist() == [[0, 0.25], [0, 0]]


def test_anything_seen_leads_to_what_is_wanted() -> None:
    log = user_events([(1, 0, VIEW), (2, 1, VIEW), (2, 2, BUY)])
    model = LastItem.fit(TrainingLog(log, 3, [BUY]), shrinkage=0)
    assert model.transitions.toarray().tolist() == [[0, 0, 1], [0] * 3, [0] * 3]


def test_scores_sum_over_the_last_moment_only() -> None:
    log = user_events(bought([0], [1]), bought([2], [1, 3]), bought([3], [0]))
    model = LastItem.fit(TrainingLog(log, 5, [BUY]), shrinkage=0)
    scores = model.scores(queries(bought([3], [0, 2])))[0]
    assert scores[1] == pytest.approx(2)
    assert scores[3] == pytest.approx(1)
    assert (scores[[0, 2, 4]] < 0).all()  # item 3 lies in an older moment: its successor 0 is out
    assert np.argmin(scores) == 4  # never bought: last in the back-off
