"""The users' rates of outcome heads: they stay in the run's folder, and not in the bundle."""

from __future__ import annotations

import logging

from recsys.artifacts.run import HEADS, HEADS_USERS
from recsys.errors import DataError, StorageError
from recsys.outcome_heads.served import ServedHeads
from serve.settings import Settings

logger = logging.getLogger("ray.serve")


def with_users(heads: ServedHeads, settings: Settings) -> tuple[ServedHeads, str | None]:
    """The heads with the rates of the users that they were fitted on, if these lie here.

    Args:
        heads: of a bundle.
        settings: of the replica, with the run's folder.

    Returns:
        The heads, and why they know no users; None: they do.
    """
    folder = settings.root / HEADS
    try:
        settings.shared.bring(folder)
        return heads.with_users(folder / HEADS_USERS), None
    except (DataError, StorageError) as error:
        logger.warning("outcome heads without users: %s", error)
        return heads, error.problem
