"""How good probabilities of outcomes are, with intervals by user, and the difference of two models.

All intervals are of the delta method: users are independent, rows of one user are not.

Legend: N rows, G users.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.metrics.calibration import ece_equal_mass
from recsys.evaluation.metrics.classification import auc_by_group, log_loss
from recsys.evaluation.metrics.curves import auc_parts
from recsys.evaluation.metrics.ratio import Ratio, ratio
from recsys.outcome_heads.heads import Outputs

Floats = NDArray[np.floating[Any]]
_Z: Final = 1.959964
#: Seconds at which the distribution of dwell times is judged.
DWELL_SECONDS: Final = (3.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval; NaN where unknown."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, found: Ratio) -> Figure:
        """With its symmetric interval."""
        return cls(found.value, found.value - _Z * found.error, found.value + _Z * found.error)

    @property
    def is_above_zero(self) -> bool:
        """Whether the interval is."""
        return self.low > 0


def judge(probabilities: Floats, labels: Floats, users: NDArray[Any]) -> dict[str, Any]:
    """Figures of one head.

    Args:
        probabilities: [N].
        labels: [N] 0 or 1.
        users: [N] int or str.

    Returns:
        `auc`, `auc_per_user` (weighted by rows, of users with both labels) and `log_loss` with
        intervals; `ece`, of 15 bins of equally many rows.
    """
    weighted = _per_user(probabilities, labels, users)
    return {
        "auc": asdict(_auc(probabilities, labels, users)),
        "auc_per_user": asdict(Figure.of(ratio(*weighted))),
        "log_loss": asdict(Figure.of(_mean(log_loss(probabilities, labels), users))),
        "ece": ece_equal_mass(probabilities, labels),
    }


def difference(
    ours: Floats, theirs: Floats, labels: Floats, users: NDArray[Any]
) -> dict[str, Figure]:
    """`auc` and `auc_per_user` of one model less those of another on the same rows."""
    (a, part_a), (b, part_b) = (auc_parts(each, labels == 1, users) for each in (ours, theirs))
    above_a, below, groups = _per_user(ours, labels, users)
    above_b, _, _ = _per_user(theirs, labels, users)
    return {
        "auc": _figure(a - b, part_a - part_b),
        "auc_per_user": Figure.of(ratio(above_a - above_b, below, groups)),
    }


def judge_dwell(
    found: Outputs, seconds: Floats, baseline: Floats, users: NDArray[Any]
) -> dict[str, Any]:
    """Of rows with a dwell time.

    Args:
        found: of the rows.
        seconds: [N] the dwell times.
        baseline: [N] what it is compared to, in seconds.
        users: [N].

    Returns:
        `mae_s` of the median, `baseline_mae_s`, their `difference_s`, and by threshold the mean of
        P(dwell > t) beside the share, with the calibration error.
    """
    ours = np.abs(found.median_dwell_seconds().numpy() - seconds)
    theirs = np.abs(baseline - seconds)
    above = []
    for least in DWELL_SECONDS:
        p, label = found.dwell_above(least).numpy(), (seconds > least).astype(np.float64)
        above.append(
            {"t_s": least, "promised": float(p.mean()), "happened": float(label.mean()),
             "ece": ece_equal_mass(p, label)}
        )  # fmt: skip
    return {
        "mae_s": float(ours.mean()), "baseline_mae_s": float(theirs.mean()),
        "difference_s": asdict(Figure.of(_mean(ours - theirs, users))), "above": above,
    }  # fmt: skip


def median_by(groups: NDArray[Any], seconds: Floats, asked: NDArray[Any]) -> Floats:
    """[N] the median of the seconds of each asked row's group; of all for a group without any."""
    medians = {group: np.median(seconds[groups == group]) for group in np.unique(groups)}
    return np.array([medians.get(group, np.median(seconds)) for group in asked])


def _mean(values: Floats, users: NDArray[Any]) -> Ratio:
    return ratio(values, np.ones(len(values)), users)


def _per_user(
    scores: Floats, labels: Floats, users: NDArray[Any]
) -> tuple[Floats, Floats, NDArray[Any]]:
    distinct, found = auc_by_group(scores, labels, users)
    rows = np.unique(users, return_counts=True)[1].astype(np.float64)
    both = ~np.isnan(found)
    return found[both] * rows[both], rows[both], distinct[both]


def _auc(scores: Floats, labels: Floats, users: NDArray[Any]) -> Figure:
    return _figure(*auc_parts(scores, labels == 1, users))


def _figure(value: float, parts: Floats) -> Figure:
    size = len(parts)
    error = float(np.sqrt(np.square(parts).sum() * size / max(size - 1, 1)))
    return Figure(value, value - _Z * error, value + _Z * error)
