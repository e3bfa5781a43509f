from __future__ import annotations

import numpy as np
import pytest
from tiny_logs import queries

from recsys.data.time_split import Questions
from recsys.reporting.trade_off import _ndcg


def test_a_list_that_stops_at_ten() -> None:
    histories = queries([], [])
    questions = Questions(
        np.arange(2), np.zeros(2, dtype=np.int32), histories.item_rows, histories.event_codes,
        histories.timestamps, histories.offsets[:-1], histories.offsets[1:], histories.now,
        np.array([3, 40, 7], dtype=np.int32), np.array([0, 2, 3]),
    )  # fmt: skip
    lists = np.array([range(10), range(7, 17)])
    # Item 3 at rank 4 of two relevant ones; item 7 at rank 1.
    first = (1 / np.log2(5)) / (1 + 1 / np.log2(3))
    assert _ndcg(lists, questions) == pytest.approx((first + 1) / 2)
