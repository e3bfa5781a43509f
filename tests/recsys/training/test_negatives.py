from __future__ import annotations

import numpy as np
import pytest

from recsys.training.negatives import NegativeSampler, popularity_share

COUNTS = np.array([0, 1, 7, 0, 31])


def test_shares_credit_every_item_with_one_event() -> None:
    assert popularity_share(COUNTS) == pytest.approx(np.array([1, 2, 8, 1, 32]) / 44)
    flat = popularity_share(COUNTS, 0.5)
    assert flat[4] / flat[0] == pytest.approx(32**0.5)


def test_a_sample_as_large_as_the_catalogue_is_the_catalogue() -> None:
    rows, log_expected = NegativeSampler(COUNTS).sample(5, np.random.default_rng(0))
    assert rows.tolist() == [0, 1, 2, 3, 4]
    assert (log_expected == 0).all()


def test_items_are_drawn_as_often_as_their_log_says() -> None:
    counts = np.arange(1000)
    drawn = np.zeros(1000)
    expected = np.zeros(1000)
    sampler, rng = NegativeSampler(counts), np.random.default_rng(0)
    for _ in range(2000):
        rows, log_expected = sampler.sample(500, rng)
        np.add.at(drawn, rows, 1)
        expected[rows] = np.exp(log_expected)
        assert log_expected.dtype == np.float32
    assert expected.sum() == pytest.approx(500, rel=1e-3)
    popular = expected > 0.3
    assert drawn[popular] / 2000 == pytest.approx(expected[popular], rel=0.2)
