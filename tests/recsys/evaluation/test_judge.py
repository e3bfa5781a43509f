"""The loop over a window's questions: batches change nothing, and no question is no row."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import Shop

from recsys.config import target_codes
from recsys.evaluation.baselines import Popularity, TrainingLog
from recsys.evaluation.judge import Judge, known_users
from recsys.evaluation.metrics.ranking import tie_order
from recsys.evaluation.report import COLUMNS, head_items


@pytest.mark.parametrize("batch_size", [1, 7, 10_000])
def test_in_batches_a_model_answers_as_at_once(shop: Shop, batch_size: int) -> None:
    codes, cut = target_codes(shop.recipe), shop.prepared.summary["cuts_us"]["test"]
    users, questions = shop.prepared.questions("test", codes)
    num_items, stats = shop.prepared.catalogue.num_items, shop.prepared.stats("test")
    model = Popularity.fit(TrainingLog(users.before(cut), num_items, codes))
    known = known_users(users, questions, cut)
    assert known.tolist() == [
        bool((users.timestamps[users.offsets[user] : users.offsets[user + 1]] < cut).any())
        for user in questions.user_index
    ]
    found = Judge.of(stats, 3).answers({"a": model, "b": model}, questions, known, batch_size)
    judge = Judge(stats.num_events == 0, head_items(stats.num_targets), tie_order(num_items, 3))
    whole = judge.answers({"a": model}, questions, known, len(questions))["a"]
    assert found.keys() == {"a", "b"}
    for values in found.values():
        np.testing.assert_array_equal(values, whole)
        assert values.dtype == np.float32


def test_without_questions_there_is_no_row(shop: Shop) -> None:
    users, questions = shop.prepared.questions("test", target_codes(shop.recipe))
    none = questions[:0]
    known = known_users(users, none, shop.prepared.summary["cuts_us"]["test"])
    judge = Judge.of(shop.prepared.stats("test"), 3)
    model = Popularity.fit(TrainingLog(users, shop.prepared.catalogue.num_items, [0]))
    assert judge.answers({"a": model}, none, known, 8)["a"].shape == (0, len(COLUMNS))
