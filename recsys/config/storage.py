"""`storage`: what a node keeps of what lies in a store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from recsys.config.base import Section
from recsys.storage.location import place_of
from recsys.storage.node_cache import NodeCache


class Storage(Section):
    """What lies in a store, and copies of it on each node: what is mapped must be a local file."""

    feedback: str | None = None
    """URI of what the service gives back. Replicas write impressions there, `compact` moves events
    there, `prepare` reads them. Default: `feedback` in `run_dir`, which then all of them see."""

    cache_dir: str | None = None
    """Folder of a local disk, of the same name on every node. Default: `raycommend` in
    `$XDG_CACHE_HOME`, else in `~/.cache`."""
    cache_gb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 50.0
    """What the folder holds at most, in 10^9 bytes; what nobody uses goes for what is needed."""

    @field_validator("feedback")
    @classmethod
    def _a_uri(cls, value: str | None) -> str | None:
        if value is not None and isinstance(place_of(value), Path):
            raise ValueError("is a URI, such as s3://bucket/feedback; a folder lies in run_dir")
        return value

    @property
    def cache(self) -> NodeCache:
        """The cache of the node that asks."""
        above = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        folder = Path(self.cache_dir or Path(above, "raycommend")).expanduser().absolute()
        return NodeCache(folder, int(self.cache_gb * 1e9))
