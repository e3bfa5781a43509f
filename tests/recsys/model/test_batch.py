from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import torch
from tiny_logs import BUY, queries

from recsys.features.windows import make_windows
from recsys.model.batch import Batch, FreshTexts


def a_batch() -> Batch:
    rows = torch.zeros(1, dtype=torch.int64)
    fresh = FreshTexts(torch.zeros(1, 2, 4), torch.ones(1, 2, dtype=torch.bool), [1], rows, rows)
    windows = make_windows(queries([(1, 0, BUY)]))
    floats = torch.zeros(1)
    return Batch(
        fresh, torch.zeros(1, 4), rows, torch.zeros(1, 3, dtype=torch.int64), windows,
        windows.item_rows, rows, rows, floats, rows, floats, floats,
    )  # fmt: skip


def leaves(value: Any) -> list[Any]:
    if is_dataclass(value):
        return [leaf for each in fields(value) for leaf in leaves(getattr(value, each.name))]
    return [value]


def test_every_tensor_moves_and_nothing_else_changes() -> None:
    """Those of the parts too: DDP moves nothing that stands in a dataclass."""
    batch = a_batch()
    moved = leaves(batch.to(torch.device("meta")))
    for before, after in zip(leaves(batch), moved, strict=True):
        if isinstance(before, torch.Tensor):
            assert after.device.type == "meta"
            assert (after.shape, after.dtype) == (before.shape, before.dtype)
        else:
            assert after == before
    assert sum(isinstance(each, torch.Tensor) for each in moved) == 20


def test_a_batch_that_is_there_already_is_not_copied() -> None:
    batch = a_batch()
    here = leaves(batch.to(torch.device("cpu")))
    assert all(before is after for before, after in zip(leaves(batch), here, strict=True))
