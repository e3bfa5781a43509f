from __future__ import annotations

import numpy as np
import torch
from tiny_logs import BUY, VIEW, queries

from recsys.features.windows import TrainingBatch, make_windows
from recsys.training.collate import DistinctRows, distinct, fresh_texts


def test_distinct_values_come_in_order_of_first_appearance() -> None:
    values, (first, second) = distinct(np.array([7, 3, 7]), np.array([9, 3]))
    assert values.tolist() == [7, 3, 9]
    assert (first.tolist(), second.tolist()) == ([0, 1, 0], [2, 1])


def test_every_item_and_text_of_a_batch_stands_there_once() -> None:
    windows = make_windows(queries([(0, 4, BUY), (5, 2, VIEW)], [(1, 2, BUY)]))
    state, weight = torch.tensor([1]), torch.ones(1)
    batch = TrainingBatch(windows, state, torch.tensor([2]), weight)
    text_rows = np.array([0, 0, 1, 1, 2])
    rows = DistinctRows.of(batch, np.array([3, 2, 0]), text_rows)
    assert rows.items.tolist() == [2, 4, 3, 0]
    assert rows.texts.tolist() == [1, 2, 0]
    assert rows.text_of_item_N.tolist() == [0, 1, 0, 2]
    assert rows.window_items_BE.tolist() == [[1, 0], [0, 0]]
    assert rows.target_items_P.tolist() == [0]
    assert rows.candidates_C.tolist() == [2, 0, 3]


def test_a_batch_takes_of_all_workers_texts_those_it_holds_once() -> None:
    hidden, mask = torch.zeros(2, 1, 4), torch.ones(2, 1, dtype=torch.bool)
    shares = [np.array([8, 5]), np.array([6, 8])]
    fresh = fresh_texts(hidden, mask, shares, np.array([6, 1, 8]))
    assert fresh.sizes == [2, 2]
    assert fresh.used_G.tolist() == [0, 2]
    assert fresh.at_G.tolist() == [2, 0]
