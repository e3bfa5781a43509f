"""Curves and AUC on small tables by hand and against the definition."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation.metrics.classification import pointwise_auc
from recsys.evaluation.metrics.curves import (
    MOST_POINTS,
    auc_by_user,
    best_f1,
    monotone_fit,
    precision_recall_points,
    reliability_points,
    roc_points,
    thresholds,
)

SCORES = np.array([0.9, 0.8, 0.8, 0.3, 0.1])
LABELS = np.array([True, True, False, True, False])


def test_curves_by_hand() -> None:
    levels, hits, misses = thresholds(SCORES, LABELS)
    assert levels.tolist() == [0.9, 0.8, 0.3, 0.1]
    assert (hits.tolist(), misses.tolist()) == ([1, 2, 3, 3], [0, 1, 1, 2])
    assert roc_points(hits, misses) == pytest.approx(
        np.array([[0, 0], [0, 1 / 3], [0.5, 2 / 3], [0.5, 1], [1, 1]])
    )
    assert precision_recall_points(hits, misses) == pytest.approx(
        np.array([[1 / 3, 1], [2 / 3, 2 / 3], [1, 0.75], [1, 0.6]])
    )
    assert best_f1(SCORES, LABELS) == 0.3


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    rng = np.random.default_rng(1)
    _, hits, misses = thresholds(rng.random(5000), rng.random(5000) < 0.3)
    points = roc_points(hits, misses)
    assert len(points) == MOST_POINTS and (points[0], points[-1]) == ([0, 0], [1, 1])
    area = np.trapezoid([y for _, y in points], [x for x, _ in points])
    assert area == pytest.approx(0.5, abs=0.03)


def test_the_auc_is_that_of_all_rows_and_its_interval_covers_by_user() -> None:
    """Users differ in how often they click and in their scores: rows are no unit."""
    rng = np.random.default_rng(2)
    truth, held, by_row = [], 0, 0
    for draw in range(440):
        users = np.repeat(np.arange(80), rng.integers(1, 15, 80))
        mood = rng.normal(0, 1, 80)[users]
        labels = rng.random(len(users)) < 1 / (1 + np.exp(1 - mood))
        scores = mood + labels + rng.normal(0, 1, len(users))
        auc, low, high = auc_by_user(scores, labels, users)
        if draw < 40:
            assert auc == pytest.approx(pointwise_auc(scores, labels))
            truth.append(auc)
        middle = np.mean(truth)
        held += draw >= 40 and low <= middle <= high
        _, low, high = auc_by_user(scores, labels, np.arange(len(users)))
        by_row += draw >= 40 and low <= middle <= high
    assert 0.9 <= held / 400 <= 0.98 and by_row < held
    assert np.isnan(auc_by_user(SCORES, LABELS, np.zeros(5))[1])


def test_a_score_becomes_the_probability_that_it_stands_for() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(0, 2, 20_000)
    labels = rng.random(20_000) < 1 / (1 + np.exp(-scores))
    asked = np.array([-3.0, -1.0, 0.0, 1.0, 3.0])
    assert monotone_fit(scores, labels, asked) == pytest.approx(1 / (1 + np.exp(-asked)), abs=0.06)
    points = reliability_points(monotone_fit(scores, labels, scores), labels, 10)
    assert [rows for *_, rows in points] == [2000] * 10
    assert all(abs(chance - share) < 0.02 for chance, share, _ in points)
