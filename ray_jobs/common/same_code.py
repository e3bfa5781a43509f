"""Whether all workers of a group run the same code: nodes may have different versions installed."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections import defaultdict
from pathlib import Path

import ray_jobs
import recsys
from recsys.errors import RaycommendError

#: Bytes that a worker tells of itself.
WIDTH = 256


def check_same_code(world: int) -> None:
    """Refuse a group whose workers run different code; every worker calls it, and all raise alike.

    Args:
        world: number of workers, in one process group.

    Raises:
        RaycommendError: they do; each version is named, with its nodes.
    """
    if world == 1:
        return
    nodes: dict[str, list[str]] = defaultdict(list)
    for told in _told_by_all(f"{code()} {platform.node()}", world):
        version, node = told.rsplit(" ", 1)
        if node not in nodes[version]:
            nodes[version].append(node)
    if len(nodes) > 1:
        each = "; ".join(f"{version} on {', '.join(nodes[version])}" for version in sorted(nodes))
        raise RaycommendError(
            f"the workers run different code: {each}",
            fix="install one version of Raycommend on all nodes, or one image",
        )


@functools.cache
def code() -> str:
    """The version, and the first digits of a hash of all sources that a worker runs."""
    sha256 = hashlib.sha256()
    for package in (recsys, ray_jobs):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            sha256.update(f"{path.relative_to(folder.parent)}\0".encode())
            sha256.update(path.read_bytes())
    return f"raycommend {recsys.__version__} ({sha256.hexdigest()[:8]})"


def _told_by_all(text: str, world: int) -> list[str]:
    """What each worker tells, in their order."""
    import torch
    import torch.distributed as dist

    mine = torch.zeros(WIDTH, dtype=torch.uint8)
    said = text.encode()[:WIDTH]
    mine[: len(said)] = torch.tensor(list(said), dtype=torch.uint8)
    told = [torch.empty_like(mine) for _ in range(world)]
    dist.all_gather(told, mine)
    return [bytes(each.tolist()).rstrip(b"\0").decode(errors="replace") for each in told]
