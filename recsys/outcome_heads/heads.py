"""The heads: probabilities of the outcomes of showing an item, its dwell time and value.

    P(cart) = P(click) P(cart | click)      P(purchase) = P(click) P(purchase | click)

Both factors are learned from all exposures through the product, so that none is learned from the
biased sample of clicks (ESMM, arXiv 1804.07931). An outcome implies a click: labels say so where
the log tells of a purchase without one. Where an item was shown is a bias of the click: training
adds it, serving does not (PAL, arXiv 2007.12865). Each input is told piecewise linearly, by how far
it reaches into each of its bins (arXiv 2203.05556): networks then do about as well as trees.

Legend: N rows, F inputs, P probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

#: The probabilities in order; all but the first and `long_view` are products with the first.
OUTCOMES: Final = ("click", "cart", "purchase", "long_view")
_PRODUCTS: Final = (1, 2)
MAX_POSITION: Final = 50
#: Bins of an input, of equally many rows.
NUM_BINS: Final = 8
_NUM_DWELLS: Final = 2
_WIDTH: Final = len(OUTCOMES) + 3 * _NUM_DWELLS + 2


@dataclass(frozen=True)
class Batch:
    """Rows to learn from.

    Attributes:
        inputs: [N, F].
        labels: [N, P] of `OUTCOMES`: 0, 1, or NaN where the log does not tell.
        dwell: [N] log(1 + seconds) of clicked items; NaN elsewhere.
        value: [N] log of what purchases came to; NaN elsewhere.
        placement: [N] int64 from 1; 0 where unknown.
        position: [N] int64 from 1; 0 where unknown.
        weight: [N] of the loss, see `weights_of`.
    """

    inputs: Tensor
    labels: Tensor
    dwell: Tensor
    value: Tensor
    placement: Tensor
    position: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def parts(self, size: int = 16_384) -> Iterator[Batch]:
        """The rows in their order, so many at a time: a row's bins take some 7 KB."""
        for start in range(0, len(self), size):
            yield Batch(**{k: column[start : start + size] for k, column in vars(self).items()})

    def at(self, rows: Tensor) -> Batch:
        """Some of the rows."""
        return Batch(**{name: column[rows] for name, column in vars(self).items()})


@dataclass(frozen=True)
class Outputs:
    """What the heads say of N rows.

    Attributes:
        log_probabilities: [N, P].
        dwell_mix, dwell_mean, dwell_deviation: [N, 2] of log(1 + seconds), given a click.
        value_mean, value_deviation: [N] of the log value, given a purchase.
    """

    log_probabilities: Tensor
    dwell_mix: Tensor
    dwell_mean: Tensor
    dwell_deviation: Tensor
    value_mean: Tensor
    value_deviation: Tensor

    def dwell_above(self, seconds: float) -> Tensor:
        """[N] P(dwell > t | click)."""
        least = torch.log1p(torch.tensor(float(seconds)))
        above = 0.5 * torch.erfc((least - self.dwell_mean) / self.dwell_deviation / 2**0.5)
        return (self.dwell_mix * above).sum(1)

    def dwell_seconds(self) -> Tensor:
        """[N] E[dwell | click]; a component's log is taken for at most log(1 + 1 day)."""
        logs = (self.dwell_mean + self.dwell_deviation**2 / 2).clamp(max=11.4)
        return (self.dwell_mix * torch.expm1(logs)).sum(1)

    def median_dwell_seconds(self) -> Tensor:
        """[N] the median of dwell given a click: what the least absolute error asks for."""
        low, high = torch.zeros(len(self.dwell_mix)), torch.full((len(self.dwell_mix),), 12.0)
        for _ in range(24):
            middle = (low + high) / 2
            z = (middle[:, None] - self.dwell_mean) / self.dwell_deviation / 2**0.5
            below = (self.dwell_mix * 0.5 * torch.erfc(-z)).sum(1) < 0.5
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return torch.expm1(low)

    def value(self) -> Tensor:
        """[N] E[value | purchase]."""
        return torch.exp((self.value_mean + self.value_deviation**2 / 2).clamp(max=20.0))


class OutcomeHeads(nn.Module):
    """A few small networks whose outputs are averaged; each has a linear part beside it.

    Args:
        num_inputs: F.
        num_placements: that positions are biased by.
        hidden: widths of the shared layers.
        dropout: after each of them.
        members: networks.
    """

    mean: Tensor
    deviation: Tensor
    low: Tensor
    width: Tensor

    def __init__(
        self,
        num_inputs: int,
        num_placements: int = 0,
        *,
        hidden: Sequence[int] = (128, 64),
        dropout: float = 0.3,
        members: int = 3,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_inputs))
        self.register_buffer("deviation", torch.ones(num_inputs))
        self.register_buffer("low", torch.zeros(num_inputs, NUM_BINS))
        self.register_buffer("width", torch.ones(num_inputs, NUM_BINS))
        num_told = num_inputs * (1 + NUM_BINS)
        self.position = nn.Parameter(torch.zeros(num_placements + 1, MAX_POSITION + 1))
        self.members = nn.ModuleList(_member(num_told, hidden, dropout) for _ in range(members))
        self.linear = nn.Linear(num_told, _WIDTH)
        nn.init.zeros_(self.linear.weight)

    @torch.no_grad()
    def set_bins(self, edges: Tensor) -> None:
        """Take the bins of each input.

        Args:
            edges: [F, B + 1] ascending.
        """
        width = edges.diff(dim=1)
        self.low.copy_(edges[:, :-1])
        # An empty bin says nothing, and is not to say anything later.
        self.width.copy_(torch.where(width > 1e-5, width, torch.inf))

    @torch.no_grad()
    def begin_at(self, rates: Tensor, log_value: Tensor) -> None:
        """Begin at the mean [P] of each outcome and the mean log value: sooner there."""
        rates = rates.clone()
        for place in _PRODUCTS:
            rates[place] /= rates[0].clamp(min=1e-6)
        self.linear.bias[: len(OUTCOMES)] = rates.clamp(1e-4, 0.99).logit()
        self.linear.bias[-2] = log_value

    def raw(self, inputs: Tensor) -> Tensor:
        """[members, N, width] outputs before their links."""
        scaled = ((inputs - self.mean) / self.deviation).clamp(-4, 4)
        reach = ((inputs[:, :, None] - self.low) / self.width).clamp(0, 1) - 0.5
        told = torch.cat([scaled, reach.flatten(1)], dim=1)
        return torch.stack([member(told) for member in self.members]) + self.linear(told)

    def forward(self, inputs: Tensor) -> Outputs:
        """What is served: no position."""
        return outputs_of(self.raw(inputs).mean(0))

    def bias(self, placement: Tensor, position: Tensor) -> Tensor:
        """[N] what the place adds to the logit of a click; 0 where it is unknown."""
        at = position.clamp(max=MAX_POSITION)
        return self.position[placement, at] * (position > 0)

    def loss(self, batch: Batch) -> Tensor:
        """The weighted mean loss of a batch: each member learns by itself."""
        bias = self.bias(batch.placement, batch.position)
        total = batch.weight.sum().clamp(min=1e-6)
        losses = [
            (_losses(outputs_of(raw, bias), batch) * batch.weight).sum() / total
            for raw in self.raw(batch.inputs)
        ]
        return torch.stack(losses).mean()


def _member(num_inputs: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(num_inputs, width), nn.SiLU(), nn.Dropout(dropout)]
        num_inputs = width
    return nn.Sequential(*layers, nn.Linear(num_inputs, _WIDTH))


def outputs_of(raw: Tensor, bias: Tensor | None = None) -> Outputs:
    """Link raw outputs [N, width]; `bias` [N] is added to the click's logit."""
    logits = raw[:, : len(OUTCOMES)]
    click = logsigmoid(logits[:, 0] if bias is None else logits[:, 0] + bias)
    logs = [
        click if place == 0 else logsigmoid(logits[:, place]) + (click if place in _PRODUCTS else 0)
        for place in range(len(OUTCOMES))
    ]
    mix, mean, spread, value = torch.split(
        raw[:, len(OUTCOMES) :], [_NUM_DWELLS, _NUM_DWELLS, _NUM_DWELLS, 2], dim=1
    )
    apart = torch.tensor([1.5, 3.5])
    return Outputs(
        torch.stack(logs, dim=1), mix.softmax(1), mean + apart, _deviation(spread),
        value[:, 0], _deviation(value[:, 1]),
    )  # fmt: skip


def _deviation(raw: Tensor) -> Tensor:
    return nn.functional.softplus(raw).clamp(0.05, 4.0)


def _losses(found: Outputs, batch: Batch) -> Tensor:
    """[N] cross-entropies, and negative log-likelihoods of dwell (x 0.3) and value (x 0.1)."""
    logs = found.log_probabilities.clamp(max=-1e-6)
    told = ~batch.labels.isnan()
    labels = batch.labels.nan_to_num(0.0)
    entropy = -(labels * logs + (1 - labels) * torch.log(-torch.expm1(logs)))
    dwell = _normal(batch.dwell[:, None], found.dwell_mean, found.dwell_deviation)
    dwell = -torch.logsumexp(dwell + found.dwell_mix.clamp(min=1e-6).log(), dim=1)
    value = -_normal(batch.value, found.value_mean, found.value_deviation)
    return (
        (entropy * told).sum(1)
        + 0.3 * torch.where(batch.dwell.isnan(), 0.0, dwell)
        + 0.1 * torch.where(batch.value.isnan(), 0.0, value)
    )


def _normal(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Log density, but a constant; NaN counts as 0."""
    return -(((x.nan_to_num(0.0) - mean) / deviation) ** 2) / 2 - deviation.log()
