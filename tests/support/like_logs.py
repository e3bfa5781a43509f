"""Generated logs with labels, full of ties: every event is an item that was shown, liked or not."""

from __future__ import annotations

import numpy as np

from recsys.data.histories import UserEvents

VIEW, LIKE = 1, 4
NUM_ITEMS, NUM_USERS = 12, 9
Event = tuple[int, int, int, int]  # user, time, item, label


def random_log(seed: int, num_events: int = 150) -> list[Event]:
    """Events at twenty moments: a user's moment holds two of them and more as often as not."""
    rng = np.random.default_rng(seed)
    columns = (
        rng.integers(NUM_USERS, size=num_events), rng.integers(20, size=num_events),
        rng.integers(NUM_ITEMS - 1, size=num_events), rng.integers(2, size=num_events),
    )  # fmt: skip
    return [tuple(int(value) for value in row) for row in zip(*columns, strict=True)]  # type: ignore[misc]


def users_of(log: list[Event]) -> UserEvents:
    log = sorted(log)
    counts = np.bincount([user for user, *_ in log], minlength=NUM_USERS)
    return UserEvents(
        [str(user) for user in range(NUM_USERS)],
        np.array([item for _, _, item, _ in log], dtype=np.int32),
        np.array([LIKE if label else VIEW for *_, label in log], dtype=np.int8),
        np.array([time for _, time, _, _ in log], dtype=np.int64),
        np.zeros(len(log), dtype=np.int32),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def texts(seed: int = 0, num_items: int = NUM_ITEMS) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(num_items, 6))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
