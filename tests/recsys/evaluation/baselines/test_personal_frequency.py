from __future__ import annotations

import numpy as np
from tiny_logs import BUY, VIEW, bought, queries, user_events

from recsys.evaluation.baselines import PersonalFrequency, TrainingLog

# Popularity: item 4 three times, 3 twice, 5 once.
TRAIN = user_events(bought([4, 3], [4], [4, 3, 5]))


def best_first(*history: tuple[int, int, int]) -> list[int]:
    model = PersonalFrequency.fit(TrainingLog(TRAIN, num_items=6, target_codes=[BUY]))
    return np.argsort(-model.scores(queries(list(history)))[0], kind="stable").tolist()


def test_count_comes_first_then_recency_then_popularity_then_the_rest() -> None:
    assert best_first(
        (1, 0, BUY), (1, 5, BUY), (2, 0, BUY), (3, 1, BUY), (4, 2, BUY), (4, 3, BUY)
    ) == [0, 3, 2, 1, 5, 4]


def test_only_target_events_count() -> None:
    assert best_first((1, 5, BUY), (2, 0, VIEW), (3, 0, VIEW)) == [5, 4, 3, 0, 1, 2]


def test_full_equals_share_a_score() -> None:
    model = PersonalFrequency.fit(TrainingLog(TRAIN, num_items=6, target_codes=[BUY]))
    scores = model.scores(queries(bought([0, 1], [2]), bought([0])))
    assert scores[0, :3].tolist() == [1, 1, 2]
    assert scores[1, 0] == 1
