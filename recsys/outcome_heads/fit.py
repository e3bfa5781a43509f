"""Fitting of the heads, over any stream of batches."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from recsys.errors import DataError
from recsys.outcome_heads.heads import NUM_BINS, OUTCOMES, Batch, OutcomeHeads


@dataclass(frozen=True)
class FitSettings:
    """How the heads are fitted.

    Attributes:
        max_epochs: at most; the learning rate falls to 0 over so many.
        patience: epochs without a better loss on the later window that end the fitting.
        lr, weight_decay: of AdamW.
        warmup_steps: that the learning rate rises over.
        batch_rows: of a batch.
        seed: of order and dropout.
    """

    max_epochs: int = 8
    patience: int = 3
    lr: float = 1e-3
    weight_decay: float = 2e-2
    warmup_steps: int = 50
    batch_rows: int = 512
    seed: int = 0


@dataclass(frozen=True)
class Epoch:
    """An epoch's mean losses."""

    number: int
    train: float
    valid: float


#: Rows, about, that the bins of inputs are made from.
_SAMPLE_ROWS: Final = 200_000


def shuffled(batch: Batch, size: int, seed: int) -> Callable[[int], Iterator[Batch]]:
    """Batches of rows in memory: another order each epoch; a short last one is left out.

    Args:
        batch: all rows.
        size: of a batch; fewer rows than that are one batch.
        seed: of the order.
    """

    def epoch(number: int) -> Iterator[Batch]:
        order = torch.Generator().manual_seed(seed * 1_000_003 + number)
        rows = torch.randperm(len(batch), generator=order)
        for start in range(0, max(1, len(rows) - size + 1), size):
            yield batch.at(rows[start : start + size])

    return epoch


@torch.no_grad()
def start(heads: OutcomeHeads, batches: Iterable[Batch]) -> None:
    """Standardise the inputs, and begin at the mean of each outcome of the rows."""
    width = len(heads.mean)
    inputs = [torch.zeros(width, dtype=torch.float64) for _ in range(2)]
    targets = [torch.zeros(len(OUTCOMES) + 1, dtype=torch.float64) for _ in range(2)]
    count = torch.zeros(1, dtype=torch.float64)
    sample: list[Tensor] = []
    for batch in batches:
        if len(batch) * len(sample) < _SAMPLE_ROWS:
            sample.append(batch.inputs)
        given = batch.inputs.double()
        inputs[0] += given.sum(0)
        inputs[1] += given.square().sum(0)
        count += len(batch)
        target = torch.cat([batch.labels, batch.value[:, None]], dim=1).double()
        targets[0] += target.nan_to_num(0.0).sum(0)
        targets[1] += (~target.isnan()).sum(0)
    places = np.linspace(0, 1, NUM_BINS + 1)
    edges = torch.from_numpy(np.quantile(torch.cat(sample).numpy(), places, axis=0).T.copy())
    heads.set_bins(edges)
    mean = inputs[0] / count
    deviation = (inputs[1] / count - mean.square()).clamp(min=0).sqrt()
    heads.mean.copy_(mean)
    # An input that does not vary says nothing, and is not to say anything later.
    heads.deviation.copy_(torch.where(deviation > 1e-4, deviation, torch.inf))
    means = targets[0] / targets[1].clamp(min=1)
    heads.begin_at(means[:-1], means[-1])


def fit(
    heads: OutcomeHeads,
    epoch: Callable[[int], Iterable[Batch]],
    num_steps: int,
    settings: FitSettings,
    *,
    valid: Callable[[], Iterable[Batch]],
    tell: Callable[[Epoch], None] = lambda _: None,
) -> None:
    """Fit the heads in place; the same seed and batches give the same weights.

    Args:
        heads: fresh ones.
        epoch: the batches of an epoch.
        num_steps: batches of an epoch.
        settings: see there.
        valid: batches of a later window: the epoch with the least loss on it is kept.
        tell: called after each epoch.

    Raises:
        DataError: no epoch's loss is finite.
    """
    torch.manual_seed(settings.seed)
    start(heads, epoch(0))
    rest = [value for name, value in heads.named_parameters() if name != "position"]
    optimizer = torch.optim.AdamW(
        [
            {"params": rest, "weight_decay": settings.weight_decay},
            # One weight a place: it needs longer steps than those of inputs.
            {"params": [heads.position], "weight_decay": 0.0, "lr": 10 * settings.lr},
        ],
        lr=settings.lr,
    )
    total = num_steps * settings.max_epochs

    def rate(step: int) -> float:
        rising = min(1.0, (step + 1) / settings.warmup_steps)
        return rising * (1 + math.cos(math.pi * step / total)) / 2

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    best, best_loss, kept = 0, math.inf, heads.state_dict()
    for number in range(1, settings.max_epochs + 1):
        heads.train()
        losses = torch.zeros(2, dtype=torch.float64)
        for batch in epoch(number):
            optimizer.zero_grad()
            loss = heads.loss(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses += torch.tensor([float(loss.detach()), 1.0], dtype=torch.float64)
        found = mean_loss(heads, valid())
        tell(Epoch(number, float(losses[0] / losses[1]), found))
        if found < best_loss:
            best, best_loss, kept = number, found, copy.deepcopy(heads.state_dict())
        elif number - best >= settings.patience:
            break
    if not math.isfinite(best_loss):
        raise DataError(
            "the outcome heads have diverged: their loss is not finite",
            field="outcomes.heads.learning_rate", value=settings.lr, fix="lower it",
        )  # fmt: skip
    heads.load_state_dict(kept)
    heads.eval()


@torch.no_grad()
def mean_loss(heads: OutcomeHeads, batches: Iterable[Batch]) -> float:
    """The mean loss of the members by rows."""
    heads.eval()
    sums = torch.zeros(2, dtype=torch.float64)
    for batch in batches:
        sums += torch.tensor([float(heads.loss(batch)) * len(batch), len(batch)])
    return float(sums[0] / sums[1])
