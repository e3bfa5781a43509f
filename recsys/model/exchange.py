"""Text vectors shared between workers: a text that several of them want is encoded by one.

All else that a step needs (ids, projection, cached vectors) every worker has already, so negatives
need no exchange: any worker can make any item's vector.

Legend: W workers, T texts that any worker wants encoded, F of them that fall to this one, H width
of the language model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

Rows = NDArray[np.int64]


def shared(world: int) -> bool:
    """Whether there are other workers that can be talked to."""
    return world > 1 and dist.is_available() and dist.is_initialized()


def shares(wanted: Rows) -> list[Rows]:
    """Who encodes what: each distinct text that any worker wants, dealt out in turn.

    Every worker gets at least one, and so a gradient, even if that text is then encoded twice.

    Args:
        wanted: texts that this worker wants; at least one.

    Returns:
        [W] rows of each worker, the same on all of them.
    """
    world = dist.get_world_size()
    counts = _gather(torch.tensor([len(wanted)]))
    width = max(int(count) for count in counts)
    padded = torch.full((width,), -1, dtype=torch.int64)
    padded[: len(wanted)] = torch.from_numpy(wanted)
    everyones = np.unique(torch.cat(_gather(padded)).numpy())
    everyones = everyones[everyones >= 0]
    return [everyones[rank % len(everyones) :: world] for rank in range(world)]


def all_vectors(mine_FH: Tensor, sizes: list[int]) -> Tensor:
    """The vectors that all workers have made [T, H], in the order of the workers; differentiable.

    Backwards, a worker gets the gradient of the sum of all workers' losses with respect to what it
    made, so that DDP's mean over the workers is the gradient of the mean loss.

    Args:
        mine_FH: what this worker has made.
        sizes: [W] number of each worker's.
    """
    gathered: Tensor = _AllVectors.apply(mine_FH, sizes)  # type: ignore[no-untyped-call]
    return gathered


class _AllVectors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor, sizes: list[int]) -> Tensor:
        rank = dist.get_rank()
        ctx.part = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        padded = mine.new_zeros(max(sizes), mine.shape[1])
        padded[: len(mine)] = mine
        parts = _gather(padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.part], None


def _gather(value: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(value) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, value)
    return parts
