"""Histories and negatives -> a batch's distinct items and texts, and which texts to encode afresh.

Legend: N distinct items of a batch, T their distinct texts, B windows, E events (padded), P
targets, C candidates, W workers, F texts that this worker encodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Bools, Int64s
from recsys.features.windows import TrainingBatch
from recsys.model.batch import FreshTexts


@dataclass(frozen=True)
class DistinctRows:
    """Each item and text of a batch once.

    Attributes:
        items: [N] catalogue rows; the targets come first, whose texts are most worth a gradient.
        texts: [T] text rows, in the order of their items.
        text_of_item_N: place of each item's text in `texts`.
        window_items_BE: place of each event's item in `items`, 0 where padded.
        target_items_P, candidates_C: places of targets and candidates in `items`.
    """

    items: Int64s
    texts: Int64s
    text_of_item_N: Tensor
    window_items_BE: Tensor
    target_items_P: Tensor
    candidates_C: Tensor

    @staticmethod
    def of(batch: TrainingBatch, candidates: Int64s, text_rows: Int64s) -> DistinctRows:
        """The distinct rows of a batch.

        Args:
            batch: windows and targets.
            candidates: [C] catalogue rows.
            text_rows: [I] text row of every item of the catalogue.
        """
        real = batch.windows.moments >= 0
        items, (targets, events, sampled) = distinct(
            batch.target_items.numpy(), batch.windows.item_rows[real].numpy(), candidates
        )
        texts, (text_of_item,) = distinct(text_rows[items])
        window_items = torch.zeros_like(batch.windows.item_rows)
        window_items[real] = torch.from_numpy(events)
        return DistinctRows(
            items,
            texts,
            torch.from_numpy(text_of_item),
            window_items,
            torch.from_numpy(targets),
            torch.from_numpy(sampled),
        )


def fresh_texts(
    hidden_FLH: Tensor, mask_FL: Tensor, shares: list[Int64s], texts: Int64s
) -> FreshTexts:
    """The model's input of the texts to encode with gradient.

    Of what the others encode, a batch takes what it has in it.

    Args:
        hidden_FLH: hidden states of this worker's share.
        mask_FL: their mask.
        shares: [W] text rows of each worker; a text may stand in two of them.
        texts: [T] the batch's distinct texts.
    """
    rows = np.concatenate(shares)
    used = _is_first(rows) & np.isin(rows, texts)
    return FreshTexts(
        hidden_FLH,
        mask_FL,
        [len(share) for share in shares],
        torch.from_numpy(np.flatnonzero(used)),
        torch.from_numpy(_places(texts, rows[used])),
    )


def distinct(*parts: Int64s) -> tuple[Int64s, list[Int64s]]:
    """Distinct values in order of first appearance, and each part as places among them."""
    joined = np.concatenate(parts)
    values, first, inverse = np.unique(joined, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    places = position[inverse]
    ends = np.cumsum([len(part) for part in parts])[:-1]
    return values[order], np.split(places, ends)


def _places(rows: Int64s, picked: Int64s) -> Int64s:
    """The place of each picked row in `rows` (distinct)."""
    order = np.argsort(rows)
    return order[np.searchsorted(rows, picked, sorter=order)].astype(np.int64)


def _is_first(rows: Int64s) -> Bools:
    """Whether each row is the first of its value."""
    found = np.zeros(len(rows), dtype=bool)
    found[np.unique(rows, return_index=True)[1]] = True
    return found
