"""User states: a transformer over (item vector, event type, time gap), causal by moment.

An event attends to the events of its own and of earlier moments. Only moments order events, so
shuffling the events of one timestamp changes nothing. The state after a moment is the mean over its
events.

Legend: B windows, L events (padded), D width, S states (one a moment), A attention heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.features.windows import Windows
from recsys.schema import EVENT_TYPES

NUM_GAP_BUCKETS = 20
US_PER_HOUR = 3_600_000_000


def gap_buckets(gap_us: Tensor) -> Tensor:
    """Time gaps in microseconds -> buckets 0..NUM_GAP_BUCKETS-1: log2 of the quarter-hours."""
    hours = gap_us.clamp(min=0).double() / US_PER_HOUR
    return torch.log2(1 + 4 * hours).long().clamp(max=NUM_GAP_BUCKETS - 1)


class Block(nn.Module):
    """A pre-norm transformer block; its attention bias is an input."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_attention, self.norm_feed = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.feed = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, bias_BALL: Tensor, at_BN: Tensor | None = None) -> Tensor:
        """The block's output [B, L, D]; with `at_BN`, at these places alone [B, N, D]."""
        D = x_BLD.shape[-1]
        weight, bias, normed = self.qkv.weight, self.qkv.bias, self.norm_attention(x_BLD)
        if at_BN is None:
            q, k, v = nn.functional.linear(normed, weight, bias).chunk(3, dim=-1)
        else:
            k, v = nn.functional.linear(normed, weight[D:], bias[D:]).chunk(2, dim=-1)
            q = nn.functional.linear(_take(normed, at_BN), weight[:D], bias[:D])
            x_BLD = _take(x_BLD, at_BN)
            places = at_BN[:, None, :, None].expand(-1, bias_BALL.shape[1], -1, k.shape[1])
            bias_BALL = bias_BALL.gather(2, places)
        A = self.num_heads
        q, k, v = (part.view(*part.shape[:2], A, D // A).transpose(1, 2) for part in (q, k, v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias_BALL)
        x = x_BLD + self.drop(self.out(mixed.transpose(1, 2).flatten(2)))
        return x + self.drop(self.feed(self.norm_feed(x)))


def _take(x_BLD: Tensor, at_BN: Tensor) -> Tensor:
    return x_BLD.gather(1, at_BN[:, :, None].expand(-1, -1, x_BLD.shape[-1]))


class UserEncoder(nn.Module):
    """Windows of events -> one state a moment.

    Args:
        dim: D, a multiple of `num_heads`.
        num_layers, num_heads, dropout: of the transformer.
    """

    def __init__(self, dim: int, num_layers: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.event_type = nn.Embedding(len(EVENT_TYPES), dim)
        self.gap = nn.Embedding(NUM_GAP_BUCKETS, dim)
        nn.init.normal_(self.event_type.weight, std=0.02)
        nn.init.normal_(self.gap.weight, std=0.02)
        self.enter = nn.Linear(dim, dim)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(dim, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)
        self.leave = nn.Linear(dim, dim)
        #: The state of a user without history.
        self.start = nn.Parameter(torch.randn(dim) * dim**-0.5)
        # ALiBi (arXiv 2108.12409), over moments in place of positions.
        self._start_as_decayed_mean()
        slopes = 2.0 ** (-torch.arange(1, num_heads + 1).float() * 8 / num_heads)
        self.register_buffer("slopes", slopes, persistent=False)
        self.slopes: Tensor

    @torch.no_grad()
    def _start_as_decayed_mean(self) -> None:
        """Initialise the encoder to a decayed mean of the history's item vectors.

        The first block passes its values through, the others add nothing yet: with the pretrained
        item vectors this is the zero-shot recommender, and training goes on from there.
        """
        eye = torch.eye(self.start.shape[0])
        for layer in (self.enter, self.leave):
            layer.weight.copy_(eye)
            layer.bias.zero_()
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            dim = len(eye)
            block.qkv.weight[: 2 * dim].mul_(0.1)
            if number == 0:
                block.qkv.weight[2 * dim :].copy_(eye)
            block.out.weight.copy_(eye if number == 0 else torch.zeros_like(eye))
            for bias in (block.qkv.bias, block.out.bias):
                bias.zero_()
            last = block.feed[-1]
            assert isinstance(last, nn.Linear)
            last.weight.zero_()
            last.bias.zero_()

    def forward(self, items_BLD: Tensor, windows: Windows) -> Tensor:
        """States [1 + S, D] of length 1; state 0 is the start state.

        Args:
            items_BLD: item vector of each event.
            windows: the events; their item rows are not read.
        """
        x, bias = self._enter(items_BLD, windows)
        for block in self.blocks:
            x = block(x, bias)
        real = windows.state_of_event > 0
        state_of_event = windows.state_of_event[real]
        states = x.new_zeros(windows.num_states + 1, x.shape[-1])
        states = states.index_add(0, state_of_event, x[real])
        counts = torch.bincount(state_of_event, minlength=len(states)).clamp(min=1)
        states = self.leave(self.norm(states / counts[:, None]))
        states = torch.cat([self.start[None], states[1:]])
        return nn.functional.normalize(states, dim=-1)

    def last_states(self, items_BLD: Tensor, windows: Windows) -> Tensor:
        """[B, D] the state after each window's last moment, that of `forward` for less work.

        The last block, half of the work of two, computes the last moment's events alone.
        """
        x, bias = self._enter(items_BLD, windows)
        moments_BL = windows.moments
        last = moments_BL.amax(dim=1, keepdim=True)
        is_last = (moments_BL == last) & (moments_BL >= 0)
        counts = is_last.sum(dim=1, keepdim=True)
        widest = max(1, int(counts.max()))
        # Places of the last moment's events; of a narrower moment some earlier events too.
        at = is_last.to(torch.int8).topk(widest, dim=1, sorted=False).indices
        for block in self.blocks[:-1]:
            x = block(x, bias)
        x = self.blocks[-1](x, bias, at) * is_last.gather(1, at)[:, :, None]
        states = self.leave(self.norm(x.sum(dim=1) / counts.clamp(min=1)))
        states = torch.where(counts > 0, states, self.start)
        return nn.functional.normalize(states, dim=-1)

    def _enter(self, items_BLD: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
        """The first block's input [B, L, D], and the attention bias [B, A, L, L]."""
        x = (
            self.enter(items_BLD)
            + self.event_type(windows.event_codes)
            + self.gap(gap_buckets(windows.gap_us))
        )
        moments_BL = windows.moments
        distance = (moments_BL[:, :, None] - moments_BL[:, None, :]).to(x.dtype)
        hidden = (distance < 0) | (moments_BL[:, None, :] < 0)
        # A padded event attends to itself: a row without a key would be NaN.
        hidden &= ~torch.eye(hidden.shape[1], dtype=torch.bool, device=hidden.device)
        # What is hidden is infinitely far: one pass over all heads, not three.
        distance.masked_fill_(hidden, float("inf"))
        return self.drop(x), -self.slopes[None, :, None, None] * distance[:, None]
