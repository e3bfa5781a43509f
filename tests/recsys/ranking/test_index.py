"""The index against reading everything, on items that lie in clusters as a shop's do."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from recsys.ranking.index import LENGTHS, RECALL, Index

NUM_ITEMS, WIDTH = 20_000, 18


def clustered(num: int, rng: np.random.Generator) -> np.ndarray:
    """Directions around 200 centres, a price, and a score of the item's own."""
    centres = np.random.default_rng(1).standard_normal((200, WIDTH - 2))
    vectors = centres[rng.integers(200, size=num)] + 0.5 * rng.standard_normal((num, WIDTH - 2))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.column_stack([vectors, rng.standard_normal((num, 2)) * [1, 0.5]]).astype(np.float32)


RNG = np.random.default_rng(0)
ITEM_PART = clustered(NUM_ITEMS, RNG)
QUERIES = clustered(96, RNG) * np.array([14.0] * (WIDTH - 2) + [0.3, 0], dtype=np.float32)
QUERIES[:, -1] = 1
INDEX = Index.build(ITEM_PART, QUERIES[:64], seed=0)


def test_it_finds_what_it_says_on_queries_it_has_not_seen() -> None:
    for length in LENGTHS:
        found = []
        for query in QUERIES[64:]:
            true = np.argsort(-(ITEM_PART @ query))[:length]
            rows, scores = INDEX.search(query, length, length)
            mine = rows[np.argsort(-scores)[:length]]
            found.append(len(np.intersect1d(true, mine)) / length)
        assert np.mean(found) > RECALL
    assert all(share >= RECALL for share in INDEX.recall)


def test_it_reads_a_part_and_its_scores_are_exact() -> None:
    for query in QUERIES[64:70]:
        rows, scores = INDEX.search(query, 10, 10)
        assert len(rows) < 0.3 * NUM_ITEMS
        assert len(set(rows.tolist())) == len(rows)
        np.testing.assert_allclose(scores, ITEM_PART[rows] @ query, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [5_000, NUM_ITEMS, NUM_ITEMS + 7])
def test_it_reads_on_until_there_are_enough(size: int) -> None:
    rows, _ = INDEX.search(QUERIES[0], 10, size)
    assert len(set(rows.tolist())) >= min(size, NUM_ITEMS)


def test_it_comes_back_from_disk(tmp_path: Path) -> None:
    meta = json.loads(json.dumps(INDEX.save(tmp_path)))
    again = Index.open(tmp_path, meta)
    assert (again.num_probed, again.recall) == (INDEX.num_probed, INDEX.recall)
    for mine, other in zip(
        again.search(QUERIES[0], 10, 10), INDEX.search(QUERIES[0], 10, 10), strict=True
    ):
        np.testing.assert_array_equal(mine, other)


def test_fewer_items_than_a_list_is_long_and_items_that_are_all_alike() -> None:
    few = Index.build(ITEM_PART[:30], QUERIES[:5], seed=0)
    assert len(few.search(QUERIES[0], 1000, 1000)[0]) == 30
    alike = Index.build(np.ones((300, WIDTH), dtype=np.float32), QUERIES[:5], seed=0)
    assert sorted(alike.search(QUERIES[0], 100, 100)[0].tolist()) == list(range(300))


def test_a_longer_list_reads_no_less_than_a_short_one() -> None:
    """What stands out in its cell is little of the best thousand, and much of the best hundred."""
    scores = np.zeros((2000, 1), dtype=np.float32)
    scores[:1100] = 5
    for cell in range(9):
        scores[1100 + 100 * cell : 1102 + 100 * cell] = 10
    starts = np.array([0, *range(1100, 2001, 100)])
    centroids = np.array([[scores[a:b].mean()] for a, b in itertools.pairwise(starts)])
    rows = np.arange(2000, dtype=np.int32)
    query = np.ones((1, 1), dtype=np.float32)
    index = Index(centroids, starts, rows, scores, (), ())._settled(query)
    assert index.num_probed == (10, 10)
    assert index.describe() == [
        "index: 10 of 10 cells hold 100.0% of the best 100",
        "index: 10 of 10 cells hold 100.0% of the best 1000",
    ]
