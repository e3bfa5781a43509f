"""Checks when a Redis store is opened: its format, and settings of the server that lose events."""

from __future__ import annotations

import logging

from recsys.errors import DataError
from recsys.state.redis.connection import Connection

logger = logging.getLogger(__name__)

#: 2: outbox and tombstones. 3: tombstones of two times. An earlier store becomes one when opened.
FORMAT_VERSION = 3


def check_format(server: Connection, prefix: str) -> None:
    """Note the format of a new store, and refuse another release's.

    Raises:
        DataError: the store under this prefix is of another format version.
    """
    client, meta = server.client, f"{prefix}:meta"
    with server.named(), client.pipeline() as both:
        both.hsetnx(meta, "format", str(FORMAT_VERSION))
        both.hget(meta, "format")
        _, found = both.execute()
    version = found.decode()
    if version in ("1", "2"):  # it lacks only what is made at need, and 1 counted users
        with server.named():
            client.hset(meta, "format", str(FORMAT_VERSION))
            client.hdel(meta, "num_users")
        return
    if version != str(FORMAT_VERSION):
        raise DataError(
            f"user state of format {version}, this release reads {FORMAT_VERSION}",
            where=f"{server.name}, {prefix}:*",
            fix="serve with the release that wrote it, or set another serve.state.prefix: "
            "a new store is made and seeded from the bundle",
        )


def warn_of_losses(server: Connection) -> None:
    """Log what the server's settings may lose, if it tells them: hosted servers may not."""
    try:
        with server.named():
            settings = {**server.client.info("persistence"), **server.client.info("memory")}
    except DataError as error:
        logger.info("%s does not tell how durable it is: %s", server.name, error)
        return
    if risks := _risks(settings):
        logger.warning("accepted events may be lost: at %s %s", server.name, " and ".join(risks))


def _risks(settings: dict[str, object]) -> list[str]:
    """What may lose events; `settings` is what the server's INFO tells."""
    risks = []
    if settings.get("aof_enabled") == 0:
        risks.append("the append-only file is off (appendonly no)")
    policy = str(settings.get("maxmemory_policy"))
    if settings.get("maxmemory") and policy.startswith("allkeys"):
        risks.append(f"a full memory drops users (maxmemory-policy {policy})")
    return risks
