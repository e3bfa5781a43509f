"""The online user state: what the service knows of a user between two requests."""

from __future__ import annotations

import os
from pathlib import Path

from recsys.config import Recipe, State
from recsys.errors import DataError
from recsys.state.base import (
    CLOCK_FILE,
    Batch,
    Erasure,
    Outcome,
    StateEvent,
    UserState,
    clock_us,
)
from recsys.state.items import ItemStore, MemoryItems
from recsys.state.memory import MemoryState
from recsys.state.sqlite.items import SqliteItems
from recsys.state.sqlite.users import SqliteState
from recsys.state.tombstones import Tombstone, is_erased, joined

__all__ = [
    "CLOCK_FILE", "STATE_FILE", "Batch", "Erasure", "ItemStore", "MemoryState", "Outcome",
    "SqliteState", "StateEvent", "Tombstone", "UserState", "clock_us", "is_erased", "joined",
    "open_items", "open_state", "state_of",
]  # fmt: skip

#: Environment variable with the Redis server's URL, where the recipe names none.
URL_VARIABLE = "RAYCOMMEND_REDIS_URL"

#: The SQLite store's file in the run's folder, where the recipe names none.
STATE_FILE = "state.sqlite"

_US_PER_DAY = 86_400_000_000


def state_of(recipe: Recipe) -> State:
    """The recipe's `serve.state` with the name filled in, and its path, if it has one, absolute."""
    state = recipe.serve.state
    path = str(Path(state.path).expanduser().absolute()) if state.path else None
    prefix = state.prefix.replace("{name}", recipe.name)
    return state.model_copy(update={"path": path, "prefix": prefix})


def open_state(state: State, default_path: Path) -> UserState:
    """Open the store that the recipe names.

    Args:
        state: of `state_of`.
        default_path: the SQLite file where the recipe names none.

    Raises:
        DataError: the SQLite file or the Redis server cannot be opened, is not named, or holds
            another release's store; the package `redis` is missing.
    """
    days = state.max_age_days
    max_age_us = None if days is None else int(days * _US_PER_DAY)
    if state.backend == "memory":
        return MemoryState(state.max_events_per_user, max_age_us)
    if state.backend == "redis":
        return _open_redis(state, max_age_us)
    path = Path(state.path).expanduser() if state.path else default_path
    return SqliteState(path, state.max_events_per_user, max_age_us)


def open_items(state: State, default_path: Path) -> ItemStore:
    """Open the store of added items: where the users are, once their store could be opened.

    Args:
        state: the recipe's `serve.state`.
        default_path: as for `open_state`; the items' file lies beside it.

    Raises:
        DataError: the SQLite file cannot be opened or holds something else.
    """
    if state.backend == "memory":
        return MemoryItems()
    if state.backend == "redis":
        from recsys.state.redis.items import RedisItems

        return RedisItems(state.url or os.environ[URL_VARIABLE], state.prefix)
    path = Path(state.path).expanduser() if state.path else default_path
    return SqliteItems(path.with_suffix(f".items{path.suffix}"))


def _open_redis(state: State, max_age_us: int | None) -> UserState:
    try:
        from recsys.state.redis.users import RedisState
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        raise DataError(
            "needs the package `redis`", field="serve.state.backend", value="redis",
            fix="install raycommend[redis], or use sqlite",
        ) from None  # fmt: skip
    url = state.url or os.environ.get(URL_VARIABLE)
    if not url:
        raise DataError(
            "names no server", field="serve.state.url",
            fix=f"write redis://HOST:PORT/DB there, or into the environment variable "
            f"{URL_VARIABLE} of every node",
        )  # fmt: skip
    return RedisState(url, state.prefix, state.max_events_per_user, max_age_us)
