"""An objective: what items are worth to one request, by what the outcome heads expect of them.

Legend: C candidates, k items of a list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recsys.arrays import Float32s, Int64s
from recsys.config import ObjectiveName
from recsys.outcome_heads.served import Expected

#: Rows [C] of candidates and their scores [C] -> what is expected of them.
Expect = Callable[[Int64s, Float32s], Expected]
#: Size -> rows and scores of so many items of the best scores.
Pool = Callable[[int], tuple[Int64s, Float32s]]


def values_of(
    weights: Mapping[ObjectiveName, float], scores: Float32s, expected: Expected
) -> Float32s:
    """[C] the weighted sum of what is expected of showing each candidate.

    `click` and `purchase` are probabilities, `revenue` the probability of a purchase times its
    value, `dwell` that of a click times its milliseconds, `relevance` the score itself.
    """
    values = np.zeros(len(scores))
    for name, weight in weights.items():
        values += weight * _part(name, scores, expected)
    return values.astype(np.float32)


def _part(name: ObjectiveName, scores: Float32s, expected: Expected) -> Any:
    if name == "relevance":
        return scores
    factors = {
        "click": (expected.click,), "purchase": (expected.purchase,),
        "revenue": (expected.purchase, expected.value),
        "dwell": (expected.click, expected.dwell_ms),
    }[name]  # fmt: skip
    part: Any = 1.0
    for factor in factors:
        assert factor is not None  # what the heads do not tell is refused before
        part = part * factor
    return part


@dataclass
class Worth:
    """What the candidates of a list are worth, remembered for those that come into it.

    Attributes:
        weights: the objective.
        num_candidates: items of the best scores that compete; more if more are wanted.
        expect: tells what is expected.
    """

    weights: Mapping[ObjectiveName, float]
    num_candidates: int
    expect: Expect
    _rows: Int64s = field(init=False)
    _scores: Float32s = field(init=False)
    _expected: Expected = field(init=False)

    def __call__(self, rows: Int64s, scores: Float32s) -> Float32s:
        """[C] values; the last call's candidates are remembered."""
        self._rows, self._scores = rows, scores
        self._expected = self.expect(rows, scores)
        return values_of(self.weights, scores, self._expected)

    def best(self, best_scored: Pool, size: int) -> tuple[Int64s, Float32s]:
        """Rows and values of the candidates that are worth most, ties by score, then by row."""
        rows, scores = best_scored(max(size, self.num_candidates))
        values = self(rows, scores)
        # Above its last step an isotonic calibration maps all to one probability.
        order = np.lexsort((rows, -scores, -values))[:size]
        return rows[order], values[order]

    def of(self, rows: Int64s) -> tuple[Float32s, Expected]:
        """[k] scores, and what is expected, of some of the remembered candidates."""
        order = np.argsort(self._rows)
        places = order[np.searchsorted(self._rows, rows, sorter=order)]
        return self._scores[places], self._expected.take(places)
