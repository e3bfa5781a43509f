"""The second stage's candidates and features against loops, on random histories full of ties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse
from tiny_logs import BUY, VIEW, Event, queries

from recsys.features import candidates as pairs_module
from recsys.features.candidates import (
    DECAY,
    PAIR_FEATURES,
    Candidates,
    find_candidates,
    make_pairs,
)
from recsys.features.item_to_item import Relations
from recsys.features.side_features import OWN_FEATURES, own_items

NUM_ITEMS, DIM = 14, 5


def random_case(seed: int) -> tuple[list[list[Event]], np.ndarray, np.ndarray]:
    """Histories, the three relations, item vectors."""
    rng = np.random.default_rng(seed)
    users = [
        sorted(
            (int(rng.integers(4)), int(rng.integers(NUM_ITEMS)), int(rng.choice([VIEW, BUY])))
            for _ in range(rng.integers(0, 8))
        )
        for _ in range(6)
    ]
    weights = rng.random((3, NUM_ITEMS, NUM_ITEMS)).astype(np.float32)
    related = np.where(rng.random(weights.shape) < 0.1, weights, 0)
    vectors = rng.standard_normal((NUM_ITEMS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return users, related, vectors


def by_hand(
    user: list[Event], related: np.ndarray, vectors: np.ndarray
) -> dict[int, dict[str, float]]:
    """Item -> the features that are not of own items."""
    transitions, co_occurrence, content_similarity = related
    moments = sorted({time for time, _, _ in user}, reverse=True)
    ago = {item: min(moments.index(t) for t, i, _ in user if i == item) for _, item, _ in user}
    last = {item: 1.0 for item, n in ago.items() if n == 0}
    few = {item: DECAY**n for item, n in ago.items()}
    weighted = {
        "transitions_last": (last, transitions),
        "transitions_recent": (few, transitions),
        "co_occurrence_recent": (few, co_occurrence),
        "content_similarity_last": (last, content_similarity),
        "content_similarity_recent": (few, content_similarity),
    }
    found = {
        name: {
            item: sum(weight * matrix[own, item] for own, weight in own_items_.items())
            for item in range(NUM_ITEMS)
        }
        for name, (own_items_, matrix) in weighted.items()
    }
    named = {item for values in found.values() for item, value in values.items() if value > 0}
    features: dict[int, dict[str, float]] = {}
    for item in sorted(named | set(ago)):
        mine = features[item] = {"is_own": float(item in ago)}
        for name, values in found.items():
            mine[f"log_{name}"] = math.log1p(100 * values[item])
            mine[f"share_{name}"] = values[item] / (max(values.values()) or 1)
        for name, own in (("cosine_last", last), ("cosine_recent", few)):
            mean = sum(weight * vectors[each] for each, weight in own.items())
            mine[name] = float(mean @ vectors[item] / np.linalg.norm(mean))
    return features


@pytest.mark.parametrize("seed", range(12))
def test_candidates_and_features_by_hand(seed: int) -> None:
    users, related, vectors = random_case(seed)
    relations = Relations(*map(sparse.csr_array, related))
    made = make_pairs(queries(*users), relations, vectors, [BUY])
    expected = [
        (query, item, values)
        for query, user in enumerate(users)
        for item, values in by_hand(user, related, vectors).items()
    ]
    assert made.query.tolist() == [query for query, _, _ in expected]
    assert made.item_rows.tolist() == [item for _, item, _ in expected]
    for place, (_, _, values) in enumerate(expected):
        for name, value in values.items():
            found = made.features[place, PAIR_FEATURES.index(name)]
            assert found == pytest.approx(value, abs=1e-5), name


def test_own_features_stand_in_the_rows_of_own_items() -> None:
    users, related, vectors = random_case(3)
    relations = Relations(*map(sparse.csr_array, related))
    histories = queries(*users)
    made, own = make_pairs(histories, relations, vectors, [BUY]), own_items(histories, [BUY])
    is_own = made.features[:, PAIR_FEATURES.index("is_own")] == 1
    np.testing.assert_array_equal(made.features[is_own, : len(OWN_FEATURES)], own.features)
    assert not made.features[~is_own, : len(OWN_FEATURES)].any()


def test_only_the_strongest_of_a_relation_are_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    transitions = np.zeros((NUM_ITEMS, NUM_ITEMS), dtype=np.float32)
    transitions[0] = np.arange(NUM_ITEMS) / 100
    none = Relations.none(NUM_ITEMS)
    relations = Relations(
        sparse.csr_array(transitions), none.co_occurrence, none.content_similarity
    )
    monkeypatch.setattr(pairs_module, "NUM_RELATED", 3)
    vectors = np.eye(NUM_ITEMS, dtype=np.float32)
    made = make_pairs(queries([(0, 0, BUY)]), relations, vectors, [BUY])
    assert made.item_rows.tolist() == [0, 11, 12, 13]


def test_nothing_related_and_nobody_asks() -> None:
    vectors, none = np.eye(NUM_ITEMS, dtype=np.float32), Relations.none(NUM_ITEMS)
    assert make_pairs(queries([(0, 5, BUY)], []), none, vectors, [BUY]).item_rows.tolist() == [5]
    for histories in (queries(), queries([], [])):
        assert make_pairs(histories, none, vectors, [BUY]).features.shape == (0, len(PAIR_FEATURES))


@pytest.mark.parametrize("seed", range(4))
def test_a_large_catalogue_and_one_query_alone_give_the_same_bits(seed: int) -> None:
    """Of a large catalogue, only the columns that occur are added up."""
    users, related, vectors = random_case(seed)
    relations, histories = Relations(*map(sparse.csr_array, related)), queries(*users)
    small = find_candidates(histories, relations, [BUY])
    large = find_candidates(histories, relations.with_items(5_000), [BUY])
    alone = [find_candidates(histories[n : n + 1], relations, [BUY]) for n in range(len(users))]
    for other in (large, Candidates.joined(alone)):
        for name, values in small.arrays().items():
            np.testing.assert_array_equal(values, other.arrays()[name], err_msg=name)
