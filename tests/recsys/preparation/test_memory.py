from __future__ import annotations

import datetime as dt

import pytest

from recsys.config import Cuts, Data
from recsys.preparation.memory import ROWS_PER_BUCKET, buckets_of, tasks_at_once


def data(**settings: object) -> Data:
    cuts = Cuts(valid=dt.datetime(2024, 1, 1), test=dt.datetime(2024, 2, 1))
    return Data.model_validate({"source": "log", "cuts": cuts, **settings})


@pytest.mark.parametrize(("memory_gb", "tasks"), [(0.5, 1), (1.9, 1), (4, 4), (64, 64)])
def test_tasks_fit_the_memory(memory_gb: float, tasks: int) -> None:
    assert tasks_at_once(data(memory_gb=memory_gb)) == tasks


def test_by_default_they_take_half_of_the_machine() -> None:
    assert tasks_at_once(data()) >= 1


def test_buckets_double_as_the_log_grows() -> None:
    few = data(num_buckets=6)
    assert buckets_of(few, 0) == buckets_of(few, 6 * ROWS_PER_BUCKET) == 6
    assert buckets_of(few, 6 * ROWS_PER_BUCKET + 1) == 12
    assert buckets_of(few, 100 * ROWS_PER_BUCKET) == 192


def test_the_memory_is_no_part_of_what_outputs_hold() -> None:
    assert "memory_gb" not in data(memory_gb=3).model_dump(mode="json")
