"""Answers of a model to the test set, their metrics, and the gain over the best baseline.

Legend: Q questions, M columns (slice x metric).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.quality.questions import TestSet
from recsys.config import Recipe
from recsys.data.histories import Histories
from recsys.evaluation.baselines import Recommends
from recsys.evaluation.gate import beats
from recsys.evaluation.judge import Judge
from recsys.evaluation.metrics.ranking import tie_order
from recsys.evaluation.report import COLUMNS, METRIC, OURS

COVERAGE = "coverage@10"
#: Slice and metric of the paired differences.
COMPARED = (
    ("all", "ndcg@10"), ("all", "hr@50"), ("new_item", "ndcg@10"), ("first_time", "ndcg@10"),
)  # fmt: skip

#: Scores computed at a time, over all questions of a batch.
SCORES_AT_ONCE = 16_000_000


class Noted:
    """A model that notes which items its lists of ten hold."""

    def __init__(self, model: Recommends) -> None:
        self._model = model
        self._seen: np.ndarray | None = None

    @property
    def name(self) -> str:
        """The model's."""
        return self._model.name

    @property
    def coverage(self) -> float:
        """Share of the catalogue that stands in some list of ten."""
        return float(self._seen.mean()) if self._seen is not None else 0.0

    def scores(self, histories: Histories) -> np.ndarray:
        """See `Recommends.scores`."""
        scores = self._model.scores(histories)
        if self._seen is None:
            self._seen = np.zeros(scores.shape[1], dtype=bool)
        most = min(10, scores.shape[1])
        self._seen[np.argpartition(scores, -most, axis=1)[:, -most:]] = True
        return scores


def judge(model: Recommends, test_set: TestSet, recipe: Recipe) -> np.ndarray:
    """[Q, M] all metrics of all rows (`COLUMNS`)."""
    num_items = len(test_set.new_item)
    size = max(1, min(256, SCORES_AT_ONCE // num_items))
    asks = Judge(test_set.new_item, test_set.head_item, tie_order(num_items, recipe.seed))
    answers = asks.answers({model.name: model}, test_set.questions, test_set.known_user, size)
    values = answers[model.name]
    assert len(values) == len(test_set.questions)
    return values


def mean_of(values: np.ndarray) -> float:
    """Mean of `METRIC` over all questions, of [Q, M] values."""
    return float(np.nanmean(values[:, COLUMNS.index(("all", METRIC))]))


def gains_of(values: dict[str, np.ndarray], users: np.ndarray, recipe: Recipe) -> dict[str, Any]:
    """Paired differences to the best baseline of each of the main metrics and slices."""
    gains = {}
    for slice_, metric in COMPARED:
        column = COLUMNS.index((slice_, metric))
        means = {
            name: float(np.nanmean(matrix[:, column]))
            for name, matrix in values.items()
            if name != OURS and np.isfinite(matrix[:, column]).any()
        }
        if not means:
            continue
        best = max(means, key=lambda name: means[name])
        verdict = beats(
            values[OURS][:, column], values[best][:, column], users, 0.95,
            recipe.evaluate.num_bootstrap, recipe.seed,
        )  # fmt: skip
        gain = {"baseline": best, "of_baseline": means[best]} | verdict.as_json()
        gains[f"{slice_}/{metric}"] = gain
    return gains
