from __future__ import annotations

import numpy as np
from tiny_logs import BUY, VIEW, queries, user_events

from recsys.evaluation.baselines import Popularity, TrainingLog


def test_counts_target_events_of_known_items() -> None:
    log = user_events(
        [(1, 0, BUY), (1, 0, BUY), (2, 1, VIEW), (3, 7, BUY)], [(1, 2, BUY), (4, 0, BUY)]
    )
    model = Popularity.fit(TrainingLog(log, num_items=4, target_codes=[BUY]))
    scores = model.scores(queries([], [(1, 3, BUY)]))
    np.testing.assert_allclose(scores, [[0.75, 0, 0.25, 0]] * 2)


def test_stands_behind_every_positive_score() -> None:
    model = Popularity(np.array([0.5, 0.0, 0.9], np.float32))
    scores = np.array([[0, 1e-30, 0], [0, 0, 0]], np.float32)
    expected = np.array([[-0.5, 1e-30, -0.1], [-0.5, -1, -0.1]], np.float32)
    np.testing.assert_allclose(model.behind(scores), expected, rtol=1e-6)
