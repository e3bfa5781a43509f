"""ROC and precision-recall curves, AUC with an interval by user, and scores made probabilities.

Legend: N labelled rows, G users.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.special import stdtrit

from recsys.arrays import Bools, Float64s, Int64s

#: Points that a curve is told by, at most.
MOST_POINTS: Final = 100


def thresholds(scores: NDArray[np.floating[Any]], labels: Bools) -> tuple[Float64s, Int64s, Int64s]:
    """The distinct scores, highest first, and how many rows of either label lie at or above each.

    Args:
        scores: [N].
        labels: [N].

    Returns:
        Scores, rows with the label, rows without.
    """
    order = np.argsort(-scores, kind="stable")
    falling, hits = scores[order], np.cumsum(labels[order])
    last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
    return falling[last].astype(np.float64), hits[last], last + 1 - hits[last]


def roc_points(hits: Int64s, misses: Int64s) -> list[list[float]]:
    """False positive rate and true positive rate, from (0, 0) to (1, 1), thinned.

    Args:
        hits: of `thresholds`, with a row of either label at the end.
        misses: likewise.
    """
    rates = np.column_stack([misses / misses[-1], hits / hits[-1]])
    return _thinned(np.vstack([[0.0, 0.0], rates]))


def precision_recall_points(hits: Int64s, misses: Int64s) -> list[list[float]]:
    """Recall and precision at each threshold with a hit, highest first, thinned."""
    told = hits > 0
    return _thinned(np.column_stack([hits / hits[-1], hits / (hits + misses)])[told])


def best_f1(scores: NDArray[np.floating[Any]], labels: Bools) -> float:
    """The threshold (score at least) of the best F1 of the rows with the label."""
    levels, hits, misses = thresholds(scores, labels)
    return float(levels[np.argmax(2 * hits / (hits + misses + hits[-1]))])


def auc_by_user(
    scores: NDArray[np.floating[Any]],
    labels: Bools,
    users: NDArray[Any],
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """AUC of all rows together, and its interval with users as the unit.

    Args:
        scores: [N] of rows; some of either label.
        labels: [N].
        users: [N] int or str.
        confidence: of the interval.

    Returns:
        The AUC and the bounds; NaN with fewer than two users.
    """
    auc, sums = auc_parts(scores, labels, users)
    num = len(sums)
    if num < 2:
        return auc, float("nan"), float("nan")
    width = stdtrit(num - 1, (1 + confidence) / 2) * np.sqrt(
        np.square(sums).sum() * num / (num - 1)
    )
    return auc, max(0.0, auc - float(width)), min(1.0, auc + float(width))


def auc_parts(
    scores: NDArray[np.floating[Any]], labels: Bools, users: NDArray[Any]
) -> tuple[float, Float64s]:
    """AUC of all rows together, NaN without both labels, and [G] each user's part of its error.

    Args:
        scores: [N].
        labels: [N].
        users: [N] int or str.

    Source: Obuchowski, Nonparametric analysis of clustered ROC curve data, Biometrics 53 (1997).
    """
    ones, zeros = np.sort(scores[labels]), np.sort(scores[~labels])

    def below(of: NDArray[Any]) -> Float64s:
        """[N] share of `of` that lies below each score; half of what is equal."""
        ends = (np.searchsorted(of, scores, side) for side in ("left", "right"))
        return np.asarray(sum(ends) / (2 * max(1, len(of))))

    wins = np.where(labels, below(zeros), 1 - below(ones))
    auc = float(wins[labels].mean()) if len(ones) and len(zeros) else float("nan")
    part = (wins - auc) / np.where(labels, len(ones), len(zeros))
    return auc, np.bincount(np.unique(users, return_inverse=True)[1], part).astype(np.float64)


def monotone_fit(
    scores: NDArray[np.floating[Any]], labels: Bools, asked: NDArray[np.floating[Any]]
) -> Float64s:
    """[M] probabilities of other rows: the non-decreasing function of the score that fits best.

    Args:
        scores: [N] of the rows that it is fitted to; one at least.
        labels: [N].
        asked: [M] scores; between two of the fitted ones it is linear.

    Source: isotonic regression, Zadrozny & Elkan, KDD 2002.
    """
    levels, owner, counts = np.unique(scores, return_inverse=True, return_counts=True)
    shares = np.bincount(owner, labels) / counts
    fitted = isotonic_regression(shares, weights=counts.astype(np.float64)).x
    return np.interp(asked, levels, fitted)


def reliability_points(probabilities: Float64s, labels: Bools, num_bins: int) -> list[list[float]]:
    """Mean probability, share with the label and rows of bins of equally many rows, rising."""
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, num_bins) if len(part)]
    return [
        [float(probabilities[part].mean()), float(labels[part].mean()), len(part)] for part in parts
    ]


def _thinned(points: NDArray[np.floating[Any]]) -> list[list[float]]:
    picked = np.unique(np.linspace(0, len(points) - 1, MOST_POINTS).astype(np.int64))
    return [[float(x), float(y)] for x, y in points[picked]]
