"""The input of one training step: every item and every text of a batch once.

Legend: N distinct items of a batch, T their distinct texts, W workers, F texts that this worker
encodes, G texts of all workers' that the batch holds, L tokens (padded), B windows, E events
(padded), P targets, C candidates of the softmax's denominator, H width of the language model.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from recsys.features.windows import Windows


@dataclass(frozen=True)
class FreshTexts:
    """Texts that a step encodes with gradient; several workers share the work.

    Attributes:
        hidden_FLH: float32, hidden states at the language model's split, of this worker's texts.
        mask_FL: bool, True where there is a token.
        sizes: [W] number of texts that each worker encodes; this worker's own is F.
        used_G: int64, which of all workers' texts the batch holds.
        at_G: int64, their places among the batch's distinct texts.
    """

    hidden_FLH: Tensor
    mask_FL: Tensor
    sizes: list[int]
    used_G: Tensor
    at_G: Tensor


@dataclass(frozen=True)
class Batch:
    """What `TwoTower.forward` reads. Items are named by their place among the N distinct ones.

    DDP moves bare tensors, lists and dicts to its device and passes a dataclass through unchanged:
    move it with `to` before the call.

    Attributes:
        fresh: texts to encode with gradient.
        cached_TH: float32, vectors of the distinct texts, from the cache.
        text_of_item_N: int64, place of each item's text among the distinct texts.
        item_rows_NR: int64, rows of ids and fields, see `ItemEncoder`.
        windows: the user encoder's input; its item rows are the catalogue's.
        window_items_BE: int64, item of each event, 0 where padded.
        target_states_P: int64, the state that predicts each target.
        target_items_P: int64.
        target_weights_P: float32, loss weight of each target.
        candidates_C: int64, sampled items.
        log_expected_C: float32, log of the expected number of draws of each candidate.
        log_share_N: float32, log of each item's share of all training targets.
        seed: of the dropout; None: torch's random numbers go on.
    """

    fresh: FreshTexts
    cached_TH: Tensor
    text_of_item_N: Tensor
    item_rows_NR: Tensor
    windows: Windows
    window_items_BE: Tensor
    target_states_P: Tensor
    target_items_P: Tensor
    target_weights_P: Tensor
    candidates_C: Tensor
    log_expected_C: Tensor
    log_share_N: Tensor
    seed: int | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch with every tensor on a device."""
        moved: Batch = _moved(self, device)
        return moved


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {each.name: _moved(getattr(value, each.name), device) for each in fields(value)}
        return replace(value, **parts)
    return value
