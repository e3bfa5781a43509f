"""Calibration of a probability, fitted on a window later than that of training.

Three monotone maps are tried: Platt's (logistic in the logit, 1999), beta (Kull et al. 2017) and
isotonic (Zadrozny & Elkan 2002), on users that they were not fitted on. The one with the least log
loss is kept if that lies surely below the loss without any: a map that follows the chances of one
window makes the next one worse. Applying one takes NumPy alone.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression, minimize

from recsys.evaluation.metrics.classification import log_loss
from recsys.evaluation.metrics.ratio import ratio

Floats = NDArray[np.floating[Any]]
#: With fewer rows of either label nothing is calibrated.
MIN_ROWS: Final = 30
METHODS: Final = ("none", "platt", "beta", "isotonic")
#: Standard errors that the log loss must fall by.
_SURELY: Final = 2.0


@dataclass(frozen=True)
class Calibration:
    """A monotone map of probabilities.

    Attributes:
        method: of `METHODS`.
        x: weights of Platt's and beta; the probabilities at the knots of isotonic.
        y: what the knots map to; empty for the others.
    """

    method: str = "none"
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    def __call__(self, probabilities: Floats) -> Floats:
        """[N] calibrated."""
        if self.method == "none":
            return probabilities
        if self.method == "isotonic":
            return np.interp(probabilities, self.x, self.y)
        weights = np.asarray(self.x)
        logits = _terms(self.method, probabilities) @ weights[:-1] + weights[-1]
        return 1 / (1 + np.exp(-logits))

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        return {"method": self.method, "x": list(self.x), "y": list(self.y)}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Calibration:
        """What `plain` gave.

        Raises:
            ValueError: it is another thing.
        """
        x, y = (np.asarray(data[name], dtype=np.float64) for name in "xy")
        lengths = {"none": (0, 0), "platt": (2, 0), "beta": (3, 0)}
        expected = lengths.get(data["method"], (len(x), len(x)))
        rises = (np.diff(x) >= 0).all() and (np.diff(y) >= 0).all()
        if (
            data["method"] not in METHODS or (len(x), len(y)) != expected
            or not np.isfinite(np.concatenate([x, y])).all()
            or (data["method"] == "isotonic" and not (rises and len(x)))
        ):  # fmt: skip
            raise ValueError("no calibration")
        return cls(data["method"], tuple(map(float, x)), tuple(map(float, y)))


def _terms(method: str, probabilities: Floats) -> Floats:
    """[N, 1] the logit, or [N, 2] log p and -log(1 - p): both weights are >= 0 if monotone."""
    kept = np.clip(np.asarray(probabilities, np.float64), 1e-7, 1 - 1e-7)
    parts = np.stack([np.log(kept), -np.log1p(-kept)], axis=1)
    return parts.sum(axis=1, keepdims=True) if method == "platt" else parts


def calibrate(
    probabilities: Floats, labels: Floats, users: NDArray[Any]
) -> tuple[Calibration, Floats]:
    """The best of the methods for a head.

    Args:
        probabilities: [N] on the later window.
        labels: [N] 0 or 1.
        users: [N] int or str.

    Returns:
        The map, and [N] probabilities by that method, fitted on other users than each row's own:
        what it is judged by.
    """
    if min(labels.sum(), len(labels) - labels.sum()) < MIN_ROWS:
        return Calibration(), probabilities
    numbers = np.unique(users, return_inverse=True)[1]
    half = numbers % 2 == 0
    held_out = {method: np.array(probabilities, np.float64) for method in METHODS}
    for method, found in held_out.items():
        for fitted, judged in ((half, ~half), (~half, half)):
            found[judged] = _fitted(method, probabilities[fitted], labels[fitted])(found[judged])
    losses = {method: log_loss(found, labels) for method, found in held_out.items()}
    best = min(METHODS, key=lambda method: losses[method].mean())
    gain = ratio(losses["none"] - losses[best], np.ones(len(labels)), numbers)
    if gain.value <= _SURELY * gain.error:
        best = "none"
    return _fitted(best, probabilities, labels), held_out[best]


def _fitted(method: str, probabilities: Floats, labels: Floats) -> Calibration:
    if method == "none" or not len(labels):
        return Calibration()
    if method == "isotonic":
        order = np.argsort(probabilities, kind="stable")
        rising, steps = probabilities[order], isotonic_regression(labels[order]).x
        opens = np.flatnonzero(np.diff(steps, prepend=-1) > 0)
        closes = np.append(opens[1:], len(steps)) - 1
        # A knot in the middle of each step: no jump for probabilities that differ by a rounding.
        middle = (rising[opens] + rising[closes]) / 2
        return Calibration("isotonic", tuple(map(float, middle)), tuple(map(float, steps[opens])))
    terms = _terms(method, probabilities)

    def loss(weights: Floats) -> tuple[float, Floats]:
        logits = terms @ weights[:-1] + weights[-1]
        gap = 1 / (1 + np.exp(-logits)) - labels
        gradient = np.append(terms.T @ gap, gap.sum()) / len(labels)
        return float((np.logaddexp(0, logits) - labels * logits).mean()), gradient

    start = np.append(np.ones(terms.shape[1]), 0.0)
    bounds = [(0.0, None)] * terms.shape[1] + [(None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return Calibration(method, tuple(map(float, found.x)))
