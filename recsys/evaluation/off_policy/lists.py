"""Estimators of a policy's value per list: the sum of the outcomes of its places.

Whole lists hardly ever come up twice, so something must be assumed of how people read them.

Legend: L lists, K places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Bools, Float64s
from recsys.evaluation.off_policy.estimate import Estimate, Overlap, estimate, weights_of


@dataclass(frozen=True)
class Lists:
    """Logged lists, and what the target policy thinks of them.

    Attributes:
        outcomes: [L, K] of the places; NaN: the list is shorter. Scale them to weigh places.
        propensities: [L, K] of the logged policy; which ones, the estimator says.
        targets: [L, K] the target policy's probabilities of the same.
        users: [L] int or str; the list's own number where the log knows no users.
    """

    outcomes: NDArray[np.floating[Any]]
    propensities: NDArray[np.floating[Any]]
    targets: NDArray[np.floating[Any]]
    users: NDArray[Any]

    def __post_init__(self) -> None:
        assert self.outcomes.shape == self.propensities.shape == self.targets.shape
        assert self.outcomes.ndim == 2 and len(self.outcomes) == len(self.users)

    def weights(self) -> tuple[Float64s, Bools]:
        """[L, K] the weights, 1 where a list has no such place, and whether it has."""
        there = ~np.isnan(self.outcomes)
        weights = np.ones(self.outcomes.shape)
        weights[there] = weights_of(self.targets[there], self.propensities[there])
        return weights, there


def iips(lists: Lists, *, clip: float = np.inf, confidence: float = 0.95) -> Estimate:
    """Item-position IPS: each place is weighted by its own item alone.

    Unbiased where an outcome depends on the item and its place, and not on the other items (the
    item-position click model).

    Args:
        lists: propensities and targets are those of the item at the place whatever stands above
            it. The service logs others, see `cascade_doubly_robust`.
        clip: larger weights count as this one; biased towards 0 then.
        confidence: of the interval.

    Raises:
        DataError: a propensity is unknown.

    Source: Li et al., Offline Evaluation of Ranking Policies with Click Models, arXiv 1804.10488.
    """
    weights, there = lists.weights()
    used = np.minimum(weights, clip)
    values = (used * np.where(there, lists.outcomes, 0.0)).sum(axis=1)
    overlap = _worst(lists, weights, used)
    return estimate(values, np.ones_like(values), lists.users, overlap, confidence)


def cascade_doubly_robust(
    lists: Lists,
    predicted: NDArray[np.floating[Any]],
    expected: NDArray[np.floating[Any]],
    *,
    clip: float = np.inf,
    confidence: float = 0.95,
) -> Estimate:
    """Cascade DR: a place is weighted by its item and all above it; a model takes variance out.

    Unbiased where an outcome depends on the item, its place and the items above, and not on those
    below (the cascade model), if the propensities or the predictions are right. The predictions
    come from a model that was not fitted on these lists; zeros make it the estimator RIPS.

    Args:
        lists: propensities and targets are those of the item given the items above it, as the
            service logs them.
        predicted: [L, K] sum of the outcomes from this place to the last that the model predicts,
            given the items down to this one, if the target policy goes on from there.
        expected: [L, K] mean of `predicted` over the items that the target policy would show at
            this place, given those above.
        clip: larger products of weights count as this one.
        confidence: of the interval.

    Raises:
        DataError: a propensity is unknown.

    Source: Kiyohara et al., Doubly Robust Off-Policy Evaluation for Ranking Policies under the
        Cascade Behavior Model, arXiv 2202.01562; RIPS: McInerney et al., arXiv
        2007.12986.
    """
    values, overlap = cascade_values(lists, predicted, expected, clip)
    return estimate(values, np.ones_like(values), lists.users, overlap, confidence)


def cascade_values(
    lists: Lists,
    predicted: NDArray[np.floating[Any]],
    expected: NDArray[np.floating[Any]],
    clip: float = np.inf,
) -> tuple[Float64s, Overlap]:
    """[L] what each list adds to `cascade_doubly_robust`, which is their mean, and the overlap.

    The difference of two policies on one log is the mean of their lists' differences.
    """
    assert predicted.shape == expected.shape == lists.outcomes.shape
    single, there = lists.weights()
    weights = np.cumprod(single, axis=1)
    used = np.minimum(weights, clip)
    above = np.concatenate([np.ones((len(used), 1)), used[:, :-1]], axis=1)
    places = used * (lists.outcomes - predicted) + above * expected
    return np.where(there, places, 0.0).sum(axis=1), _worst(lists, weights, used)


def _worst(
    lists: Lists, weights: NDArray[np.floating[Any]], used: NDArray[np.floating[Any]]
) -> Overlap:
    places = zip(weights.T, used.T, strict=True)
    return Overlap.worst([Overlap.of(*place, lists.users) for place in places])
