"""Each map mends what it can, is monotone, and is chosen by users that it was not fitted on."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation.metrics.calibration import ece_equal_mass
from recsys.outcome_heads.calibration import Calibration, calibrate

RNG = np.random.default_rng(0)
TRUTH = RNG.beta(1.5, 3, 40_000)
LABELS = (RNG.random(len(TRUTH)) < TRUTH).astype(float)
USERS = RNG.integers(2_000, size=len(TRUTH))
EARLY = np.arange(len(TRUTH)) < 20_000


@pytest.mark.parametrize("given", [TRUTH, TRUTH**2, 1 / (1 + np.exp(2 - 8 * TRUTH)), TRUTH / 2])
def test_what_is_bent_is_mended_on_later_rows(given: np.ndarray) -> None:
    found, judged = calibrate(given[EARLY], LABELS[EARLY], USERS[EARLY])
    assert ece_equal_mass(found(given[~EARLY]), LABELS[~EARLY]) < 0.015
    assert ece_equal_mass(judged, LABELS[EARLY]) < 0.02
    assert (found.method == "none") == (given is TRUTH)
    rising = np.linspace(0.001, 0.999, 300)
    assert (np.diff(found(rising)) >= 0).all()
    assert Calibration.from_plain(found.plain()) == found


def test_few_rows_calibrate_nothing() -> None:
    found, judged = calibrate(TRUTH[:40], LABELS[:40], USERS[:40])
    assert found.method == "none"
    assert (judged == TRUTH[:40]).all()


@pytest.mark.parametrize(
    "damaged",
    [
        {"method": "platt", "x": [1.0], "y": []},
        {"method": "isotonic", "x": [0.2, 0.1], "y": [0.1, 0.2]},
        {"method": "beta", "x": [1.0, float("nan"), 0.0], "y": []},
        {"method": "spline", "x": [], "y": []},
    ],
)
def test_a_damaged_map_is_refused(damaged: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Calibration.from_plain(damaged)
