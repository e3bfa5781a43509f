"""Optimiser, schedule and early stopping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from recsys.config import Train


def build_optimizer(
    model: nn.Module, train: Train, slow: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """AdamW or SGD; weight decay on matrices only, a smaller rate for the parameters `slow`.

    Norms, biases and single scalars are not decayed, as is usual for transformers.
    """
    slow_ids = {id(parameter) for parameter in slow}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            key = (id(parameter) in slow_ids, parameter.ndim >= 2)
            groups.setdefault(key, []).append(parameter)
    options = [
        {
            "params": parameters,
            "lr": train.learning_rate * (train.language_model_lr_factor if is_slow else 1.0),
            "weight_decay": train.weight_decay if decays else 0.0,
        }
        for (is_slow, decays), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    if train.optimizer == "sgd":
        return torch.optim.SGD(options, lr=train.learning_rate, momentum=0.9, nesterov=True)
    # Elsewhere the default is the fast one.
    fused = True if next(model.parameters()).device.type == "cpu" else None
    return torch.optim.AdamW(options, lr=train.learning_rate, betas=(0.9, 0.98), fused=fused)


def warmup_cosine(step: int, num_steps: int, warmup_fraction: float) -> float:
    """Factor on the learning rate: linear warm-up, then a cosine down to a tenth."""
    warmup = max(1, round(num_steps * warmup_fraction))
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, num_steps - warmup))
    return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))


def should_stop(history: Sequence[float], patience: int) -> bool:
    """Whether no one of the last `patience` values exceeds the best before (higher is better)."""
    if len(history) <= patience:
        return False
    return max(history[-patience:]) <= max(history[:-patience])
