"""How well the logged score of each model tells what was clicked from what was not.

Of what was shown alone, so of a model's own choice: two models are not compared by it, and a place
further down is clicked less by itself. A score is no probability. It is made one by a monotone fit
on half of the users, and its calibration is judged on the others, as is the threshold of the
classification report.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.arrays import Bools, Float64s
from recsys.evaluation.metrics.calibration import ece_equal_mass
from recsys.evaluation.metrics.curves import (
    auc_by_user,
    best_f1,
    monotone_fit,
    precision_recall_points,
    reliability_points,
    roc_points,
    thresholds,
)
from recsys.evaluation.metrics.ratio import MIN_OUTCOMES
from recsys.outcomes.rates import bounds, known
from recsys.schema import Col

#: Exposures of a model that are kept; beyond them those of a sample of its users.
MOST_ROWS: Final = 500_000
NUM_BINS: Final = 15
_DRAWN, _UNIT = "drawn", "unit"


class Scored:
    """Scores and clicks of each model, of all users or of a sample of them."""

    def __init__(self) -> None:
        self._rows: dict[str, pl.DataFrame] = {}
        self._share: dict[str, float] = {}

    def add(self, rows: pl.DataFrame) -> None:
        """Add all exposures of a day; those without a score or a model do not count."""
        unit = pl.coalesce(Col.user, Col.request, Col.exposure)
        told = rows.filter(pl.col(Col.score).is_finite() & pl.col(Col.model_version).is_not_null())
        drawn = (unit.hash(seed=7) / 2.0**64).alias(_DRAWN)
        columns = told.select(Col.model_version, Col.score, Col.clicked, unit.alias(_UNIT), drawn)
        for (version,), new in columns.partition_by(Col.model_version, as_dict=True).items():
            every = pl.concat([*([self._rows[version]] if version in self._rows else []), new])
            share = self._share.get(version, 1.0)
            every = every.filter(pl.col(_DRAWN) < share)
            while every.height > MOST_ROWS:
                share /= 2
                every = every.filter(pl.col(_DRAWN) < share)
            self._rows[version], self._share[version] = every, share

    def told(self) -> list[dict[str, Any]]:
        """A report of each model, as plain data; docs/formats.md lists it."""
        return [
            {"name": version, "share_of_users": self._share[version], **_report(rows)}
            for version, rows in sorted(self._rows.items())
        ]


def _report(rows: pl.DataFrame) -> dict[str, Any]:
    ordered = rows.sort(_UNIT, Col.score, Col.clicked)
    scores = ordered[Col.score].to_numpy().astype(np.float64)
    clicked, users = ordered[Col.clicked].to_numpy(), ordered[_UNIT].to_numpy()
    found: dict[str, Any] = {
        "exposures": rows.height, "clicks": int(clicked.sum()), "users": len(np.unique(users)),
        "auc": None, "roc": None, "precision_recall": None, "classification": None,
        "calibration": None,
    }  # fmt: skip
    if min(clicked.sum(), (~clicked).sum()) < MIN_OUTCOMES:
        return found
    auc, low, high = auc_by_user(scores, clicked, users)
    _, hits, misses = thresholds(scores, clicked)
    found |= {
        "auc": {"value": auc, "interval": bounds(low, high)},
        "roc": roc_points(hits, misses),
        "precision_recall": precision_recall_points(hits, misses),
    }
    # The mantissa's middle digits: the first ones say who is in the sample.
    fits = (ordered[_DRAWN].to_numpy() * 2**20).astype(np.int64) % 2 == 0
    if min(clicked[fits].sum(), clicked[~fits].sum()) < MIN_OUTCOMES:
        return found
    chances = monotone_fit(scores[fits], clicked[fits], scores[~fits])
    return found | {
        "classification": _classified(scores, clicked, fits),
        "calibration": {
            "bins": reliability_points(chances, clicked[~fits], NUM_BINS),
            "error": ece_equal_mass(chances, clicked[~fits], NUM_BINS),
        },
    }


def _classified(scores: Float64s, clicked: Bools, fits: Bools) -> dict[str, Any]:
    """Precision, recall and F1 of both labels at a threshold that was found on other users."""
    threshold = best_f1(scores[fits], clicked[fits])
    guess, truth = scores[~fits] >= threshold, clicked[~fits]
    return {"threshold": threshold, "accuracy": float((guess == truth).mean())} | {
        name: _of_label(guess == label, truth == label)
        for name, label in (("clicked", True), ("not_clicked", False))
    }


def _of_label(guess: Bools, truth: Bools) -> dict[str, Any]:
    hits, guessed, support = (int(each.sum()) for each in (guess & truth, guess, truth))
    return {
        "precision": known(hits / guessed if guessed else math.nan),
        "recall": known(hits / support if support else math.nan),
        "f1": 2 * hits / (guessed + support) if guessed + support else None,
        "support": support,
    }
