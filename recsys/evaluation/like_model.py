"""Like probability of an item that is shown: logistic regression on `like_features`.

The model is fitted on exposures after the cut that its counts stand at, and so on what they had not
seen: that keeps its probabilities calibrated without another step.

Legend: Q questions (a user is shown an item at a moment), I items, H width of the language model,
F = len(LIKE_FEATURES).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.arrays import Float64s
from recsys.data.histories import UserEvents
from recsys.data.time_split import ask_shown
from recsys.evaluation.like_features import LikeStats


@dataclass(frozen=True)
class LikeModel:
    """Eleven weights on standardised features.

    Attributes:
        weights: [F]; 0 where the feature did not vary when it was fitted.
        bias: of the logit.
        mean, deviation: [F] of the rows it was fitted on.
    """

    weights: Float64s
    bias: float
    mean: Float64s
    deviation: Float64s

    def logits(self, features: Float64s) -> Float64s:
        """[Q] log odds of a like."""
        return (features - self.mean) / self.deviation @ self.weights + self.bias

    def predict(self, features: Float64s) -> Float64s:
        """[Q] the like probability."""
        return 1 / (1 + np.exp(-self.logits(features)))

    @staticmethod
    def fit(
        features: Float64s, labels: NDArray[Any], *, penalty: float = 1e-3, num_steps: int = 300
    ) -> LikeModel:
        """Logistic regression by full-batch L-BFGS; the bias is not penalised.

        Args:
            features: [Q, F].
            labels: [Q] 0 or 1.
            penalty: on the sum of squared weights, against the mean loss.
            num_steps: of L-BFGS at most.

        Raises:
            ValueError: there is no row.
        """
        if not len(features):
            raise ValueError("no exposure to fit the like model on")
        mean, deviation = features.mean(axis=0), features.std(axis=0)
        varies = deviation >= 1e-6
        deviation = np.where(varies, deviation, 1.0)
        inputs = torch.from_numpy(np.where(varies, (features - mean) / deviation, 0.0))
        wanted = torch.from_numpy(np.asarray(labels, dtype=np.float64))
        weights = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weights, bias], max_iter=num_steps, line_search_fn="strong_wolfe"
        )

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                inputs @ weights + bias, wanted
            )
            loss = loss + penalty * (weights**2).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call, arg-type]
        return LikeModel(weights.detach().numpy(), float(bias.detach()), mean, deviation)


def fit_like_model(
    users: UserEvents,
    text_vectors: NDArray[np.floating[Any]],
    target_codes: Sequence[int],
    *,
    cut: int,
    until: int,
    likes_only: bool = False,
) -> LikeModel:
    """Fit a model on the exposures from a cut on, with counts as of the cut.

    Args:
        users: whole event lists; nothing at or after `until` is read.
        text_vectors: [I, H] of length 1.
        target_codes: event codes of a label 1.
        cut: microseconds; events before it are counted.
        until: the end of the window that is fitted on.
        likes_only: since the cut a history shows its likes alone, see `LikeStats.features`.
    """
    stats = LikeStats.count(users.before(cut), text_vectors, target_codes)
    questions = ask_shown(users, start=cut, end=until)
    features = stats.features_of(questions, likes_only_since=cut if likes_only else None)
    codes = users.event_codes[(users.timestamps >= cut) & (users.timestamps < until)]
    return LikeModel.fit(features, np.isin(codes, np.asarray(target_codes)))
