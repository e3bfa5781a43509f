from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation.metrics.beyond_accuracy import (
    catalogue_coverage,
    intra_list_diversity,
)


def test_diversity_is_the_mean_distance_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((20, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lists = np.array([rng.permutation(20)[:6] for _ in range(4)])
    for found, items in zip(intra_list_diversity(lists, vectors), lists, strict=True):
        cosines = [vectors[a] @ vectors[b] for a in items for b in items if a != b]
        assert found == pytest.approx(1 - np.mean(cosines), abs=1e-5)


def test_equal_and_opposite_and_alone() -> None:
    vectors = np.array([[1, 0], [1, 0], [-1, 0]], dtype=np.float32)
    assert intra_list_diversity(np.array([[0, 1], [0, 2]]), vectors).tolist() == [0, 2]
    assert np.isnan(intra_list_diversity(np.array([[0]]), vectors)).all()


def test_coverage() -> None:
    assert catalogue_coverage(np.array([[0, 1], [1, 2]]), 10) == 0.3
