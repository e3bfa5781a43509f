from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation.metrics.calibration import ece_equal_mass, ece_equal_width


def test_by_hand() -> None:
    chances = np.array([0.1, 0.9, 0.2, 0.7])
    labels = np.array([0, 1, 1, 0])
    # {.1, .2} holds one 1 of two and promises .15; {.7, .9} one of two and promises .8.
    assert ece_equal_mass(chances, labels, 2) == pytest.approx((0.35 + 0.3) / 2)
    assert ece_equal_width(chances, labels, 2) == pytest.approx((0.35 + 0.3) / 2)
    # Each row a bin of its own.
    assert ece_equal_mass(chances, labels, 15) == pytest.approx((0.1 + 0.1 + 0.8 + 0.7) / 4)


def test_the_highest_chance_is_in_the_last_bin() -> None:
    assert ece_equal_width(np.array([1.0, 0.95]), np.array([1, 1])) == pytest.approx(0.025)


@pytest.mark.parametrize("num_rows", [7, 100, 1003])
def test_equals_a_loop_over_the_bins(num_rows: int) -> None:
    rng = np.random.default_rng(num_rows)
    chances, labels = rng.random(num_rows), rng.integers(2, size=num_rows)
    parts = [part for part in np.array_split(np.argsort(chances), 15) if len(part)]
    mass = sum(abs(labels[part].sum() - chances[part].sum()) for part in parts) / num_rows
    assert ece_equal_mass(chances, labels) == pytest.approx(mass)
    width = 0.0
    for low in range(10):
        inside = (chances >= low / 10) & (chances < (low + 1) / 10)
        width += abs(labels[inside].sum() - chances[inside].sum()) / num_rows
    assert ece_equal_width(chances, labels) == pytest.approx(width)


def test_no_rows() -> None:
    assert np.isnan(ece_equal_mass(np.zeros(0), np.zeros(0)))
    assert np.isnan(ece_equal_width(np.zeros(0), np.zeros(0)))
