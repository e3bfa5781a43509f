"""The online user state: what the service knows of a user between two requests."""

from __future__ import annotations

from pathlib import Path

from recsys.config import State
from recsys.state.base import StateEvent, UserState
from recsys.state.memory import MemoryState
from recsys.state.sqlite import SqliteState

__all__ = ["MemoryState", "SqliteState", "StateEvent", "UserState", "open_state"]


def open_state(state: State, default_path: Path) -> UserState:
    """Open the store that the recipe names.

    Args:
        state: the recipe's `serve.state`.
        default_path: the SQLite file where the recipe names none.

    Raises:
        DataError: the SQLite file cannot be opened or is not one of this release's.
    """
    if state.backend == "memory":
        return MemoryState(state.max_events_per_user)
    path = Path(state.path).expanduser() if state.path else default_path
    return SqliteState(path, state.max_events_per_user)
