"""Two arrays one below the other are read as their copy in one would be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recsys.features.stacked import Stacked

UPPER, LOWER = 5, 3
WHOLE = np.random.default_rng(0).random((UPPER + LOWER, 4)).astype(np.float32)
ROWS = st.lists(st.integers(0, UPPER + LOWER - 1), max_size=12).map(
    lambda rows: np.array(rows, dtype=np.int64)
)


@pytest.fixture(scope="module", params=[2, 1])
def whole(request: pytest.FixtureRequest) -> np.ndarray:
    """A matrix, and a vector."""
    return WHOLE if request.param == 2 else np.ascontiguousarray(WHOLE[:, 0])


@given(ROWS)
def test_rows_are_those_of_the_whole(whole: np.ndarray, rows: np.ndarray) -> None:
    stacked = Stacked(whole[:UPPER], whole[UPPER:])
    assert (len(stacked), stacked.shape) == (len(whole), whole.shape)
    np.testing.assert_array_equal(stacked[rows], whole[rows])
    np.testing.assert_array_equal(stacked.take(rows, axis=0), whole.take(rows, axis=0))


@given(ROWS, ROWS)
def test_rows_may_have_any_shape(some: np.ndarray, other: np.ndarray) -> None:
    stacked = Stacked(WHOLE[:UPPER], WHOLE[UPPER:])
    rows = some[:, None] * 0 + other[None, :]
    np.testing.assert_array_equal(stacked[rows], WHOLE[rows])


@given(ROWS)
def test_tensors_are_read_alike(rows: np.ndarray) -> None:
    stacked = Stacked(torch.from_numpy(WHOLE[:UPPER]), torch.from_numpy(WHOLE[UPPER:]))
    found = stacked[torch.from_numpy(rows)]
    assert isinstance(found, torch.Tensor)
    np.testing.assert_array_equal(found.numpy(), WHOLE[rows])
    np.testing.assert_array_equal(stacked.numpy()[rows], WHOLE[rows])


def test_reading_changes_neither_part() -> None:
    upper, lower = WHOLE[:UPPER].copy(), WHOLE[UPPER:].copy()
    stacked = Stacked(upper, lower)
    stacked[np.array([0, UPPER])][:] = -1
    stacked.take(np.array([0, UPPER]), axis=0)[:] = -1
    np.testing.assert_array_equal(np.concatenate([upper, lower]), WHOLE)


def test_nothing_is_copied() -> None:
    upper, lower = WHOLE[:UPPER], WHOLE[UPPER:]
    stacked = Stacked(upper, lower)
    assert stacked.upper is upper and stacked.lower is lower
    of_tensors = Stacked(torch.from_numpy(upper), torch.from_numpy(lower)).numpy()
    assert np.shares_memory(of_tensors.upper, upper)
