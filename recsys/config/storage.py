"""`storage`: what a node keeps of what lies in a store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from recsys.config.base import Section
from recsys.storage.node_cache import NodeCache


class Storage(Section):
    """Copies of what lies at URIs, on each node: what is memory-mapped must be a local file."""

    cache_dir: str | None = None
    """Folder of a local disk, of the same name on every node. Default: `raycommend` in
    `$XDG_CACHE_HOME`, else in `~/.cache`."""
    cache_gb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 50.0
    """What the folder holds at most, in 10^9 bytes; what nobody uses goes for what is needed."""

    @property
    def cache(self) -> NodeCache:
        """The cache of the node that asks."""
        above = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        folder = Path(self.cache_dir or Path(above, "raycommend")).expanduser().absolute()
        return NodeCache(folder, int(self.cache_gb * 1e9))
