"""The k highest scores, one rule for every list: best first, ties by position."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.arrays import Int64s

Scalar = TypeVar("Scalar", bound=np.floating[Any])


def top_k(scores: NDArray[Scalar], k: int) -> tuple[Int64s, NDArray[Scalar]]:
    """Select the k highest finite scores.

    Ties go by position at the cut too, so the first n of k are the top n: items with equal texts
    and prices score alike.

    Args:
        scores: [I]; -inf bars a position.
        k: how many; fewer come back if fewer are finite.

    Returns:
        [k] positions and their scores, highest first.
    """
    top = np.arange(len(scores))
    if k < len(scores):
        last = np.partition(scores, len(scores) - k)[len(scores) - k]
        above = np.flatnonzero(scores > last)
        top = np.concatenate([above, np.flatnonzero(scores == last)[: k - len(above)]])
    top = top[np.isfinite(scores[top])]
    order = np.lexsort((top, -scores[top]))
    return top[order].astype(np.int64), scores[top[order]]
