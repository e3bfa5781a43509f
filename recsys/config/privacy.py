"""`privacy`: the key of the pseudonyms."""

from __future__ import annotations

from recsys.config.base import Section


class Privacy(Section):
    """The key that turns user ids into pseudonyms."""

    key_env: str = "RAYCOMMEND_PSEUDONYM_KEY"
    """Environment variable with the key; it wins over the file."""
    key_file: str | None = None
    """File with the key; made (mode 0600) if missing. Default: the run's `pseudonym.key`."""
