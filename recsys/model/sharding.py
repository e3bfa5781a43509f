"""Sharding of the language model over workers: FSDP2 (arXiv 2304.11277), for one no device holds.

Each worker has a share of every layer's weights, gradients and optimiser state; a layer is whole
while it computes. Every worker must therefore call the language model equally often. The encoders
of users and items stay whole on each, with DDP.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from recsys.model.two_tower import TwoTower


def shard(model: TwoTower, device: torch.device) -> None:
    """Shard the language model's layers over the workers of the process group, on a device.

    Weights are exchanged in float32 whatever the precision of products: with FSDP's own mixed
    precision what layers hand on is bfloat16 too, and the small test model's item vectors differed
    from float32 by .01 in place of .0002.

    Args:
        model: the same on every worker.
        device: of this worker; only shares of layers come to lie there.
    """
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    language = model.language
    for layer in (*language.frozen_layers, *language.trained_layers):
        fully_shard(layer, mesh=mesh)
    # One root, so that the next layer is gathered while one computes. It has no share of its own.
    fully_shard(language, mesh=mesh, ignored_params=set(language.embeddings.parameters()))
    language.is_sharded = True
    shares = [name for name, value in model.named_parameters() if is_share(value)]
    leave = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    leave(model, shares)  # type: ignore[no-untyped-call]


def is_share(value: Tensor) -> bool:
    """Whether a tensor is this worker's share of a sharded one."""
    return hasattr(value, "full_tensor")  # `DTensor`'s module takes two seconds to import


def whole(value: Tensor) -> Tensor:
    """A tensor, gathered if it is sharded: then all workers must call this."""
    gather = getattr(value, "full_tensor", None)
    return value if gather is None else gather()


def share_like(value: Tensor, like: Tensor) -> Tensor:
    """One's share of a whole tensor, if `like` is one of a sharded tensor of its shape."""
    if not is_share(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    there = value.to(like.device)
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)


def clip_grad_norm(parameters: Iterable[nn.Parameter], most: float) -> None:
    """Scale all gradients down, so that their norm over all parameters and shares is at most so."""
    learning = [each for each in parameters if each.grad is not None]
    kinds = [[each for each in learning if is_share(each) == shared] for shared in (False, True)]
    norms = [
        whole(nn.utils.get_total_norm([each.grad for each in kind if each.grad is not None]))
        for kind in kinds if kind
    ]  # fmt: skip
    total = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    for kind in filter(None, kinds):
        nn.utils.clip_grads_with_norm_(kind, most, total)
