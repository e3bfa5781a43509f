"""The model card: what the heads were made from and how good they are, as plain data."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.report import finite
from recsys.outcome_heads.baselines import baselines
from recsys.outcome_heads.heads import OUTCOMES
from recsys.outcome_heads.judge import judge
from recsys.outcome_heads.learn import Examples
from recsys.outcome_heads.model import OutcomeModel


def card_of(
    model: OutcomeModel, examples: Examples, moments: NDArray[np.int64], clipped: float | None
) -> dict[str, Any]:
    """The card of a model, with figures of the later window: of `model.judged`; null: unknown.

    Args:
        model: fitted.
        examples: that it was fitted on.
        moments: [N] of the examples, microseconds.
        clipped: share of the known propensities whose weight was clipped.
    """
    later, labels = examples.later, examples.batch.labels.numpy()
    inputs = examples.batch.inputs.numpy()
    heads: dict[str, Any] = {}
    for name, probabilities in model.judged.items():
        label = labels[:, OUTCOMES.index(name)]
        told, trained = later & ~np.isnan(label), ~later & ~np.isnan(label)
        rate = float(np.clip(label[trained].mean(), 1e-6, 1 - 1e-6))
        given = {
            "heads": probabilities[told[later]],
            **baselines(model.spec, inputs[told], name, rate),
        }
        users = examples.users[told]
        heads[name] = {
            "rate": rate,
            "calibration": model.calibrations[name].method,
            "figures": {who: _told(judge(p, label[told], users)) for who, p in given.items()},
        }
    return {
        "rows": len(moments),
        "later_rows": int(later.sum()),
        "window": [_iso(moments.min()), _iso(moments.max())],
        "later_from": _iso(moments[later].min()) if later.any() else None,
        "inputs": model.spec.plain() | {"scores": sorted(model.spec.scores)},
        "placements": sorted(model.placements),
        "clipped_share": clipped,
        "heads": heads,
    }


def _told(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures for JSON, which has no NaN."""
    return {
        name: _told(each) if isinstance(each, dict) else finite(each)
        for name, each in figures.items()
    }


def _iso(moment: Any) -> str:
    return datetime.fromtimestamp(int(moment) / 1e6, UTC).isoformat()
