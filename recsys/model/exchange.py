"""Text vectors shared between workers: a text that several of them want is encoded by one.

Every worker has the ids, the projection and the cached vectors of all items, so negatives need no
exchange.

Legend: W workers, T texts that any worker wants encoded, F of them that fall to this one, H width
of the language model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from recsys.arrays import Int64s


def is_distributed(world: int) -> bool:
    """Whether there are other workers, in one process group with this one."""
    return world > 1 and dist.is_available() and dist.is_initialized()


def split_texts(wanted: Int64s, stale: Int64s) -> tuple[list[Int64s], list[Int64s]]:
    """Assign each distinct text that any worker wants to one worker, round-robin.

    Where there is any, every worker gets at least one, even if that text is then encoded twice: of
    the wanted ones for a gradient, of the stale ones because a sharded language model needs all.

    Args:
        wanted: texts that this worker wants with gradient; at least one.
        stale: texts that it wants without.

    Returns:
        [W] rows of each worker, the same on all of them: of the wanted ones, and of the stale ones
        that nobody wants with gradient.
    """
    world = dist.get_world_size()
    counts = _gather(torch.tensor([len(wanted), len(stale)]))
    width = max(int(count.sum()) for count in counts)
    padded = torch.full((width,), -1, dtype=torch.int64)
    padded[: len(wanted) + len(stale)] = torch.from_numpy(np.concatenate([wanted, stale]))
    told = [texts.numpy() for texts in _gather(padded)]
    num_wanted = [int(count[0]) for count in counts]
    first = np.unique(np.concatenate([t[:n] for t, n in zip(told, num_wanted, strict=True)]))
    second = np.unique(np.concatenate([t[n:] for t, n in zip(told, num_wanted, strict=True)]))
    second = np.setdiff1d(second[second >= 0], first)
    return _dealt(first, world), _dealt(second, world)


def _dealt(texts: Int64s, world: int) -> list[Int64s]:
    return [texts[rank % max(1, len(texts)) :: world] for rank in range(world)]


def gather_vectors(mine_FH: Tensor, sizes: list[int]) -> Tensor:
    """All workers' vectors [T, H], in the order of the workers; differentiable.

    The backward pass gives a worker the gradient of the sum of all workers' losses with respect to
    its own vectors, so that DDP's mean over the workers is the gradient of the mean loss.

    Args:
        mine_FH: vectors of this worker.
        sizes: [W] number of vectors of each worker.
    """
    gathered: Tensor = _GatherVectors.apply(mine_FH, sizes)  # type: ignore[no-untyped-call]
    return gathered


class _GatherVectors(torch.autograd.Function):
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
