"""What the heads must beat: the smoothed rates of item and user alone, and the sum of both.

Legend: N rows, F inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.outcome_heads.inputs import InputSpec

Floats = NDArray[np.floating[Any]]


def baselines(
    spec: InputSpec, inputs: NDArray[np.float32], outcome: str, rate: float
) -> dict[str, Floats]:
    """Name -> [N] probabilities.

    Args:
        spec: of the inputs.
        inputs: [N, F]; user's rates come first, then those of the item.
        outcome: of `spec.rates`.
        rate: of everything, in training.
    """
    place = spec.rates.index(outcome)
    user = inputs[:, place].astype(np.float64)
    item = inputs[:, len(spec.rates) + 2 + spec.dwell + place].astype(np.float64)
    base = np.log(rate / (1 - rate))
    logits = {"item rate": item, "user rate": user, "sum of logits": item + user}
    return {name: 1 / (1 + np.exp(-base - each)) for name, each in logits.items()}
