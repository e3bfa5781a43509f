"""Take over the prepared histories of a bundle's log into the store of users."""

from __future__ import annotations

import logging
import time

from recsys.artifacts.bundle import Bundle
from recsys.errors import DataError, StorageError
from recsys.preparation.prepared import PREPARED, Prepared
from recsys.state import UserState
from serve.settings import Settings

logger = logging.getLogger("ray.serve")


def seed(state: UserState, bundle: Bundle, settings: Settings, max_events: int) -> str:
    """Take over the prepared histories that a bundle was made from, if they lie here.

    One history shard at a time: memory, and the time that writers wait, are a shard's, however
    large the log is.

    Args:
        state: the store.
        bundle: names the log by its fingerprint.
        settings: of the replica, with the run's folder.
        max_events: of a user, the newest.

    Returns:
        What became of it, for `GET /model`.
    """
    fingerprint = bundle.meta.get("data_fingerprint")
    try:
        settings.shared.bring(settings.root / PREPARED)
        prepared = Prepared.open(settings.root)
        if prepared.summary["data_fingerprint"] != fingerprint:
            logger.warning("%s is not what %s was made from", prepared.folder, bundle.version)
            return f"not taken over: {prepared.folder.name} holds another log than the bundle's"
        started, num_users, item_ids = time.monotonic(), 0, None
        erased = settings.read_erased()
        for path in prepared.shards:
            source = f"{fingerprint}/{path.stem}"
            if state.is_seeded(source):
                continue
            if item_ids is None:
                item_ids = prepared.item_ids()
            table = prepared.shard(path)
            if state.seed(table, item_ids, max_events, source=source, erased=erased):
                num_users += len(table)
    except (DataError, StorageError) as error:
        return f"not taken over: {error.problem}"
    except Exception as error:  # the log moved away under us; without it we still can answer
        logger.exception("%s: its log cannot be taken over", bundle.version)
        return f"not taken over: {type(error).__name__}"
    if num_users:
        logger.info("took over %d users in %.1f s", num_users, time.monotonic() - started)
    return "taken over"
