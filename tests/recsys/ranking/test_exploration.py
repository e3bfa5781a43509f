"""Drawn lists: how often each comes is what its propensities say."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from recsys.ranking.exploration import Drawn, Exploration, epsilon_greedy, plackett_luce, seed_of

SCORES = np.array([0.3, -1.0, 1.2, 0.3, 0.0], dtype=np.float32)
WAYS = [{"temperature": 0.7}, {"temperature": 3.0}, {"epsilon": 0.3}, {"epsilon": 1.0}]


def draws(way: dict[str, float], k: int, number: int) -> list[Drawn]:
    return [Exploration(seed, **way).draw(SCORES, k) for seed in range(number)]


def chances(way: dict[str, float], k: int) -> dict[tuple[int, ...], float]:
    """The chance of every list of k by the definition, one place after the other."""
    found = {}
    for places in permutations(range(len(SCORES)), k):
        left, chance = list(range(len(SCORES))), 1.0
        for place in places:
            if "temperature" in way:
                weights = {i: np.exp(float(SCORES[i]) / way["temperature"]) for i in left}
                chance *= weights[place] / sum(weights.values())
            else:
                is_best = place == max(left, key=lambda i: (SCORES[i], -i))
                chance *= way["epsilon"] / len(left) + (1 - way["epsilon"]) * is_best
            left.remove(place)
        found[places] = chance
    return found


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("k", [1, 2, 5])
def test_lists_come_as_often_as_their_propensities_say(way: dict[str, float], k: int) -> None:
    expected = chances(way, k)
    assert sum(expected.values()) == pytest.approx(1)
    drawn = draws(way, k, 6_000)
    for each in drawn[:500]:
        told = float(np.prod(each.propensities))
        assert told == pytest.approx(expected[tuple(each.places.tolist())], rel=1e-6)
    counts = Counter(tuple(each.places.tolist()) for each in drawn)
    common = [places for places, chance in expected.items() if chance * len(drawn) >= 5]
    observed = [counts[places] for places in common]
    wanted = [expected[places] * len(drawn) for places in common]
    observed.append(len(drawn) - sum(observed))
    wanted.append(len(drawn) - sum(wanted))
    if wanted[-1] < 5:  # too few for a class of its own
        observed[-2:], wanted[-2:] = [sum(observed[-2:])], [sum(wanted[-2:])]
    # With fixed seeds: a right draw fails one such test in a thousand, and then always.
    assert stats.chisquare(observed, wanted).pvalue > 0.001


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_chances_of_all_that_may_come_next_sum_to_one(way: dict[str, float]) -> None:
    """Over the lists that begin alike, by the propensities that were told."""
    told: dict[tuple[int, ...], dict[int, float]] = {}
    for each in draws(way, 2, 5_000):
        first, second = each.places.tolist()
        told.setdefault((), {})[first] = float(each.propensities[0])
        told.setdefault((first,), {})[second] = float(each.propensities[1])
    for begin, nexts in told.items():
        assert len(nexts) == len(SCORES) - len(begin), "each of them was drawn"
        assert sum(nexts.values()) == pytest.approx(1)


def test_towards_zero_the_list_is_that_of_the_scores() -> None:
    scores = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    ranked = np.argsort(-scores)[:20]
    for way in ({"temperature": 1e-9}, {"epsilon": 1e-12}):
        drawn = Exploration(3, **way).draw(scores, 20)
        assert drawn.places.tolist() == ranked.tolist()
        assert drawn.propensities == pytest.approx(np.ones(20))


def test_a_seed_draws_one_list_and_another_seed_another() -> None:
    scores = np.zeros(1000, dtype=np.float32)
    lists = {}
    for request in ("a", "b", "a"):
        drawn = Exploration(seed_of(request, "salt"), temperature=1.0).draw(scores, 10)
        lists.setdefault(request, []).append(drawn.places.tolist())
    assert lists["a"][0] == lists["a"][1] != lists["b"][0]
    assert seed_of("a", "salt") != seed_of("a", "pepper")


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(("num", "k"), [(0, 3), (1, 1), (3, 10)])
def test_fewer_candidates_than_places(way: dict[str, float], num: int, k: int) -> None:
    drawn = Exploration(0, **way).draw(SCORES[:num], k)
    assert sorted(drawn.places.tolist()) == list(range(num))
    assert len(drawn.propensities) == num
    assert num == 0 or drawn.propensities[-1] == pytest.approx(1)


def test_one_item_that_rules_costs_the_others_no_digits() -> None:
    """A sum less what is shown would be 0 where the first item has all but 1e-300 of it."""
    scores = np.array([700.0, 0.0, 0.0], dtype=np.float32)
    drawn = plackett_luce(scores, 3, 1.0, np.random.default_rng(0))
    assert drawn.places[0] == 0
    assert drawn.propensities == pytest.approx([1, 0.5, 1])


def test_no_item_comes_twice_in_a_long_list() -> None:
    scores = np.random.default_rng(2).normal(size=60).astype(np.float32)
    drawn = epsilon_greedy(scores, 50, 0.5, np.random.default_rng(0))
    assert len(set(drawn.places.tolist())) == 50
    assert (drawn.propensities > 0).all() and (drawn.propensities <= 1).all()
