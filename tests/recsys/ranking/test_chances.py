"""Chances of lists under a policy: those that are logged, and what it would have shown instead."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from recsys.ranking.chances import Policy
from recsys.ranking.exploration import Exploration

SCORES = np.array([0.3, -np.inf, 1.0, 0.3, -2.0], dtype=np.float32)
SOLD = np.isfinite(SCORES)
VALUES = np.arange(10, dtype=np.float64).reshape(5, 2)
POLICIES = [Policy(), Policy(epsilon=0.3), Policy(epsilon=1.0), Policy(temperature=0.5),
            Policy(temperature=0.001)]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES[1:], ids=str)
def test_a_drawn_list_has_the_propensities_that_are_logged(policy: Policy) -> None:
    rows = np.flatnonzero(SOLD)
    for seed in range(20):
        exploration = Exploration(seed, policy.epsilon, policy.temperature)
        drawn = exploration.draw(SCORES[rows], 3)
        found = policy.chances(SCORES, rows[drawn.places], VALUES)
        assert found.shown == pytest.approx(drawn.propensities, rel=1e-9)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_the_expected_value_is_the_mean_over_what_may_come(policy: Policy) -> None:
    """At each place of each list, the last places of all items on sale among them."""
    for shown in permutations(np.flatnonzero(SOLD).tolist()):
        found = policy.chances(SCORES, np.array(shown), VALUES)
        for place in range(len(shown)):
            left = [row for row in np.flatnonzero(SOLD).tolist() if row not in shown[:place]]
            chances = [
                policy.chances(SCORES, np.array([*shown[:place], row]), VALUES).shown[place]
                for row in left
            ]
            assert sum(chances) == pytest.approx(1)
            assert found.expected[place] == pytest.approx(np.array(chances) @ VALUES[left])


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("never", [1, -1])
def test_below_what_is_never_shown_nothing_is_said(policy: Policy, never: int) -> None:
    """The place itself still has its mean: cascade DR asks for it."""
    found = policy.chances(SCORES, np.array([2, never, 0]), VALUES)
    whole = policy.chances(SCORES, np.array([2, 3, 0]), VALUES)
    assert found.shown[0] == whole.shown[0] > 0 and found.shown[1:].tolist() == [0, 0]
    assert found.expected[:2] == pytest.approx(whole.expected[:2])
    assert not found.expected[2].any()


def test_the_plain_order_is_certain() -> None:
    assert Policy().chances(SCORES, np.array([2, 0, 3]), VALUES).shown.tolist() == [1, 1, 1]
    assert Policy().chances(SCORES, np.array([2, 3, 0]), VALUES).shown.tolist() == [1, 0, 1]


def test_one_item_that_rules_loses_no_digits() -> None:
    scores = np.array([500.0, 0.0, 0.0], dtype=np.float32)
    found = Policy(temperature=0.5).chances(scores, np.array([0, 1, 2]), np.eye(3))
    assert found.shown == pytest.approx([1, 0.5, 1])
    assert found.expected[1] == pytest.approx([0, 0.5, 0.5])
