"""Estimators of a policy's value per exposure, each exposure taken by itself.

They hold where the outcome of an exposure depends on user, item and place, and not on what else
was shown; for lists see `lists`.

Legend: N exposures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Float64s
from recsys.evaluation.off_policy.estimate import Estimate, Overlap, estimate, weights_of


@dataclass(frozen=True)
class Exposures:
    """Logged exposures, and what the target policy thinks of them.

    Attributes:
        outcomes: [N] such as 0 or 1 for a click, or a value.
        propensities: [N] probability with which the item was shown there; in (0, 1].
        targets: [N] the target policy's probability of the same.
        users: [N] int or str; the row's own number where the log knows no users.
    """

    outcomes: NDArray[np.floating[Any]]
    propensities: NDArray[np.floating[Any]]
    targets: NDArray[np.floating[Any]]
    users: NDArray[Any]

    def __post_init__(self) -> None:
        assert (
            self.outcomes.shape == self.propensities.shape == self.targets.shape == self.users.shape
        )


def ips(shown: Exposures, *, clip: float = np.inf, confidence: float = 0.95) -> Estimate:
    """Inverse propensity scoring: the mean of weight times outcome.

    Unbiased without clipping.

    Args:
        shown: the log.
        clip: larger weights count as this one; biased towards 0 then.
        confidence: of the interval.

    Raises:
        DataError: a propensity is unknown.

    Source: Horvitz & Thompson 1952; clipping: Ionides 2008.
    """
    weights, overlap = _weights(shown, clip)
    ones = np.ones_like(weights)
    return estimate(weights * shown.outcomes, ones, shown.users, overlap, confidence)


def snips(shown: Exposures, *, clip: float = np.inf, confidence: float = 0.95) -> Estimate:
    """Self-normalised IPS: by the sum of the weights, not by their number.

    Of less variance, and never outside the range of the outcomes; its bias vanishes with N.
    Arguments and errors as of `ips`.

    Source: Swaminathan & Joachims, The Self-Normalized Estimator for Counterfactual Learning, 2015.
    """
    weights, overlap = _weights(shown, clip)
    return estimate(weights * shown.outcomes, weights, shown.users, overlap, confidence)


def doubly_robust(
    shown: Exposures,
    predicted: NDArray[np.floating[Any]],
    expected: NDArray[np.floating[Any]],
    *,
    clip: float = np.inf,
    confidence: float = 0.95,
) -> Estimate:
    """A model's prediction of the target's value, corrected by its weighted errors on the log.

    Unbiased if the propensities or the predictions are right. The predictions come from a model
    that was not fitted on these rows, else the interval is too narrow.

    Args:
        shown: the log.
        predicted: [N] outcome that the model predicts for the item that was shown.
        expected: [N] mean of its predictions over the items that the target policy would show.
        clip: larger weights count as this one.
        confidence: of the interval.

    Raises:
        DataError: a propensity is unknown.

    Source: Dudik et al., Doubly Robust Policy Evaluation and Learning, arXiv 1103.4601.
    """
    weights, overlap = _weights(shown, clip)
    return _corrected(shown, weights, predicted, expected, overlap, confidence)


def switch_doubly_robust(
    shown: Exposures,
    predicted: NDArray[np.floating[Any]],
    expected: NDArray[np.floating[Any]],
    *,
    switch_above: float,
    confidence: float = 0.95,
) -> Estimate:
    """Doubly robust where weights are small; the model alone where they are large.

    The interval knows nothing of the model's bias where the weight is above the limit:
    `share_clipped` tells how much that is. Arguments and errors as of `doubly_robust`.

    Args:
        shown: the log.
        predicted: [N] the model's, as of `doubly_robust`.
        expected: [N] the model's.
        switch_above: a larger weight counts as 0.
        confidence: of the interval.

    Source: Wang et al., Optimal and Adaptive Off-policy Evaluation in Contextual Bandits,
        arXiv 1612.01205.
    """
    weights = weights_of(shown.targets, shown.propensities)
    used = np.where(weights <= switch_above, weights, 0.0)
    overlap = Overlap.of(weights, used, shown.users)
    return _corrected(shown, used, predicted, expected, overlap, confidence)


def _weights(shown: Exposures, clip: float) -> tuple[Float64s, Overlap]:
    weights = weights_of(shown.targets, shown.propensities)
    used = np.minimum(weights, clip)
    return used, Overlap.of(weights, used, shown.users)


def _corrected(
    shown: Exposures,
    weights: Float64s,
    predicted: NDArray[np.floating[Any]],
    expected: NDArray[np.floating[Any]],
    overlap: Overlap,
    confidence: float,
) -> Estimate:
    assert predicted.shape == expected.shape == weights.shape
    values = expected + weights * (shown.outcomes - predicted)
    return estimate(values, np.ones_like(weights), shown.users, overlap, confidence)
