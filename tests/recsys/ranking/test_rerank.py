from __future__ import annotations

import numpy as np
import pytest

from recsys.ranking.rerank import NO_CATEGORY, centred, diversify

NONE = np.full(6, NO_CATEGORY)
SCORES = np.array([9, 8, 7, 6, 5, 4], dtype=np.float32)
#: 0, 1 and 2 are one thing, 3 and 4 another, 5 a third.
VECTORS = np.eye(3, dtype=np.float32)[[0, 0, 0, 1, 1, 2]]


def pick(
    k: int = 6, diversity: float = 0.0, categories: np.ndarray = NONE, **rules: int
) -> list[int]:
    found = diversify(SCORES, VECTORS, categories, k, diversity=diversity, **rules)
    return list(found.tolist())


def test_without_diversity_the_scores_decide() -> None:
    assert pick() == [0, 1, 2, 3, 4, 5]


def test_full_diversity_shows_every_kind_before_any_twice() -> None:
    assert pick(3, 1.0) == [0, 3, 5]


def test_in_between_by_hand() -> None:
    # Relevance 1, .8, .6, .4, .2, 0. After 0: item 1 is worth .6*.8-.4, item 3 .6*.4.
    assert pick(2, 0.4) == [0, 3]
    assert pick(2, 0.2) == [0, 1]


@pytest.mark.parametrize("seed", range(8))
def test_as_a_loop_would(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.random(30).astype(np.float32))[::-1].copy()
    vectors = rng.standard_normal((30, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    categories, diversity, cap = rng.integers(-1, 4, 30), rng.random(), int(rng.integers(1, 4))
    relevance = (scores - scores[-1]) / (scores[0] - scores[-1])
    expected: list[int] = []
    while len(expected) < 12:
        worth = {}
        for item in set(range(30)) - set(expected):
            same = sum(categories[each] == categories[item] for each in expected)
            if categories[item] != NO_CATEGORY and same >= cap:
                continue
            near = max([0.0, *(float(vectors[item] @ vectors[each]) for each in expected)])
            weight = diversity if expected else 0
            worth[item] = (1 - weight) * relevance[item] - weight * near
        if not worth:
            break
        expected.append(max(worth, key=lambda item: worth[item]))
    found = diversify(scores, vectors, categories, 12, diversity=diversity, max_per_category=cap)
    assert found.tolist() == expected


def test_a_cap_counts_what_has_a_category() -> None:
    categories = np.array([0, 0, 0, 1, 0, 1])
    assert pick(categories=categories, max_per_category=2) == [0, 1, 3, 5]
    assert pick(categories=categories, max_per_category=1) == [0, 3]
    assert pick(max_per_category=1) == [0, 1, 2, 3, 4, 5]


def test_a_pool_of_nothing_and_of_equals() -> None:
    nothing = np.zeros(0, dtype=np.float32)
    empty = diversify(nothing, VECTORS[:0], NONE[:0], 3, diversity=0.5)
    assert empty.tolist() == []
    equal = diversify(np.ones(3, dtype=np.float32), VECTORS[:3], NONE[:3], 3, diversity=0.0)
    assert equal.tolist() == [0, 1, 2]


def test_what_all_share_is_taken_out() -> None:
    rng = np.random.default_rng(0)
    own = rng.standard_normal((50, 4)).astype(np.float32)
    shared = (own + np.float32(100)).astype(np.float32)
    found = centred(shared, shared.mean(axis=0))
    expected = own - own.mean(axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert not centred(np.ones((2, 3), dtype=np.float32), np.ones(3, dtype=np.float32)).any()
