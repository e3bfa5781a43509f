from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recsys.model.vector_cache import VectorCache

RNG = np.random.default_rng(0)


def cache(num_texts: int = 10, max_age: int = 3) -> VectorCache:
    return VectorCache(np.zeros((num_texts, 2), dtype=np.float32), max_age)


def numbers(rows: np.ndarray) -> torch.Tensor:
    """An encoder whose vector of a text is its row."""
    return torch.from_numpy(rows).float()[:, None].expand(-1, 2)


def test_what_was_put_is_read_with_its_age() -> None:
    vectors = cache()
    rows = np.array([7, 2])
    vectors.put(rows, numbers(rows), step=5)
    assert vectors.vectors[[7, 2, 3], 0].tolist() == [7, 2, 0]
    assert vectors.age(np.array([2, 7, 3]), step=6).tolist() == [1, 1, 6]


def test_the_vectors_given_are_copied() -> None:
    given = np.zeros((3, 2), dtype=np.float32)
    vectors = VectorCache(given, 3)
    vectors.put(np.array([1]), torch.ones(1, 2), step=1)
    assert given.sum() == 0


def test_of_a_mapped_file_only_the_cache_changes(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.zeros((3, 2), dtype=np.float32))
    given = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    first, second = VectorCache(given, 3), VectorCache(given, 3)
    first.put(np.array([1]), torch.ones(1, 2), step=1)
    assert first.vectors.tolist() == [[0, 0], [1, 1], [0, 0]]
    assert second.vectors.sum() == given.sum() == np.load(tmp_path / "vectors.npy").sum() == 0


@pytest.mark.parametrize("budget", [None, 4, 9])
def test_with_budget_enough_all_are_fresh(budget: int | None) -> None:
    rows = np.array([3, 1, 2, 9])
    fresh, stale = cache().split(rows, budget, 100, RNG)
    assert fresh.tolist() == [3, 1, 2, 9]
    assert stale.tolist() == []


def test_fresh_ones_are_drawn_from_the_most_wanted() -> None:
    vectors, rows = cache(100), np.arange(99, -1, -1)
    drawn = set()
    for _ in range(50):
        fresh, stale = vectors.split(rows, 5, 1, RNG)
        assert len(set(fresh.tolist())) == 5
        assert stale.tolist() == []
        drawn |= set(fresh.tolist())
    assert drawn == set(range(80, 100))


def test_none_is_used_beyond_its_age() -> None:
    vectors, rows = cache(max_age=3), np.arange(10)
    assert vectors.split(rows, 1, 3, RNG)[1].tolist() == []
    vectors.put(np.arange(5), numbers(np.arange(5)), step=2)
    fresh, stale = vectors.split(rows, 1, 4, RNG)
    assert set(stale) == set(range(5, 10)) - set(fresh)
    vectors.refresh(stale, 4, numbers)
    vectors.put(fresh, numbers(fresh), 4)
    assert vectors.split(rows, 1, 4, RNG)[1].tolist() == []
    assert (vectors.age(rows, 5) <= 3).all()
    assert vectors.vectors[stale, 0].tolist() == stale.tolist()


def test_without_a_budget_for_gradients_nothing_is_fresh() -> None:
    fresh, stale = cache().split(np.arange(4), 0, 1, RNG)
    assert (fresh.tolist(), stale.tolist()) == ([], [])


def test_after_a_resume_every_vector_is_too_old() -> None:
    vectors = cache()
    vectors.expire(7)
    fresh, stale = vectors.split(np.arange(10), 2, 7, RNG)
    assert sorted([*fresh, *stale]) == list(range(10))


def test_refreshing_keeps_no_graph() -> None:
    weight = torch.ones(1, requires_grad=True)
    vectors = cache()
    vectors.refresh(np.array([1]), 1, lambda rows: numbers(rows) * weight)
    vectors.refresh(np.array([], dtype=np.int64), 1, lambda rows: 1 / 0)  # type: ignore[arg-type, return-value]
    assert not vectors.vectors.requires_grad
