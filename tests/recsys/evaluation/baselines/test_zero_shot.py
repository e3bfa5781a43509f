from __future__ import annotations

import numpy as np
from tiny_logs import bought, queries

from recsys.evaluation.baselines import Popularity, ZeroShot

POPULARITY = Popularity(np.array([0.1, 0.5, 0.3, 0.0], np.float32))
VECTORS = np.array([[2, 0], [0, 5], [3, 4]], np.float32)


def test_cosine_to_the_latest_text_expanded_to_items() -> None:
    model = ZeroShot.of(VECTORS, np.array([0, 1, 2, 0], np.int32), POPULARITY)
    scores = model.scores(queries(bought([0]), []))
    np.testing.assert_allclose(scores[0], [1, 0, 0.6, 1], atol=1e-6)
    assert np.array_equal(scores[1], POPULARITY.fraction)


def test_older_items_weigh_less_and_a_moments_items_alike() -> None:
    model = ZeroShot.of(VECTORS, np.array([0, 1, 2, 0], np.int32), POPULARITY)
    scores = model.scores(queries(bought([0], [1]), bought([0, 1])))
    np.testing.assert_allclose(scores[0, :2], np.array([0.9, 1]) / np.hypot(0.9, 1), rtol=1e-6)
    np.testing.assert_allclose(scores[1, :2], [np.sqrt(0.5)] * 2, rtol=1e-6)


def test_only_the_latest_20_items_are_read() -> None:
    num_items = 22
    vectors = np.eye(num_items, dtype=np.float32)
    popularity = Popularity(np.zeros(num_items, np.float32))
    model = ZeroShot.of(vectors, np.arange(num_items, dtype=np.int32), popularity)
    scores = model.scores(queries(bought(*([item] for item in range(num_items)))))[0]
    assert (scores > 0).tolist() == [False] * 2 + [True] * 20


def test_a_text_without_a_vector_is_no_division_by_zero() -> None:
    model = ZeroShot.of(np.zeros((1, 2), np.float32), np.zeros(4, np.int32), POPULARITY)
    assert model.scores(queries(bought([0]))).tolist() == [[0, 0, 0, 0]]
