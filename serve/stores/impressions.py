"""The impression log: every answered list, written off the hot path.

An answer is put into a queue in memory, which takes microseconds and never waits. A thread writes
what has come, once a second, to a file of `schema.IMPRESSIONS` that is whole or not there. If the
disk does not keep up, the queue fills and further lists are counted and not logged: an answer is
worth more than its log. A replica that is killed loses the lists of its last second.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from recsys.data.feedback import write_segment
from recsys.schema import IMPRESSIONS, TIMESTAMP, Col
from recsys.storage.location import Place

logger = logging.getLogger("ray.serve")

#: Seconds between two files, and items that make one at once.
FLUSH_S, FLUSH_ITEMS = 1.0, 50_000
#: Items that wait at most; some 300 bytes each.
MAX_WAITING = 200_000
#: Seconds between two warnings of lists that were not logged.
WARN_S = 60.0


@dataclass(frozen=True, slots=True)
class Shown:
    """An answered list.

    Attributes:
        request_id: of the answer.
        user_id: raw; None for a session.
        items: as answered: `item_id` and `score` of each.
        model_version: what ranked them.
        timestamp: when, microseconds since 1970, UTC.
        arm: the name of the arm that did.
        propensities: probability of each item at its place, given those above it; None: 1 for all,
            the list follows from the scores.
        placement: where it is shown, as the request told.
    """

    request_id: str
    user_id: str | None
    items: Sequence[dict[str, Any]]
    model_version: str
    timestamp: int
    arm: str
    propensities: Sequence[float] | None = None
    placement: str | None = None


class ImpressionLog(Protocol):
    """Takes answered lists.

    Attributes:
        num_dropped: items that were shown and not logged.
    """

    num_dropped: int

    def offer(self, shown: Shown) -> None:
        """Queue a list for logging; returns at once."""

    def close(self) -> None:
        """Write what waits."""


class NoImpressions:
    """Logs nothing, and drops nothing."""

    num_dropped = 0

    def offer(self, shown: Shown) -> None:
        """See `ImpressionLog`."""

    def close(self) -> None:
        """See `ImpressionLog`."""


class Impressions:
    """An `ImpressionLog` in Parquet files; one a replica.

    Args:
        folder: of the impressions of all replicas, here or in a store.
        pseudonym: raw user id -> what is written.
        flush_s: seconds between two files.
        flush_items: so many waiting items are written at once.
        max_waiting: items that wait at most; a list beyond them is dropped.

    Attributes:
        num_dropped: items that were shown and not logged.
    """

    def __init__(
        self,
        folder: Place,
        pseudonym: Callable[[str], str],
        *,
        flush_s: float = FLUSH_S,
        flush_items: int = FLUSH_ITEMS,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._folder, self._pseudonym = folder / uuid.uuid4().hex, pseudonym
        self._flush_s, self._flush_items, self._max_waiting = flush_s, flush_items, max_waiting
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._waiting: list[Shown] = []
        self._num_waiting, self._is_closed = 0, False
        self.num_dropped, self._warned = 0, (0, float("-inf"))
        self._thread = threading.Thread(target=self._run, name="impressions", daemon=True)
        self._thread.start()

    def offer(self, shown: Shown) -> None:
        """See `ImpressionLog`; where too much waits, the list is counted and not logged."""
        with self._lock:
            if self._is_closed or self._num_waiting + len(shown.items) > self._max_waiting:
                self.num_dropped += len(shown.items)
                return
            self._waiting.append(shown)
            self._num_waiting += len(shown.items)
            is_full = self._num_waiting >= self._flush_items
        if is_full:
            self._wake.set()

    def close(self) -> None:
        """See `ImpressionLog`; what is offered after is not logged."""
        with self._lock:
            self._is_closed = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_closed:
            self._wake.wait(self._flush_s)
            self._wake.clear()
            self._flush()
        self._flush()

    def _flush(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        # Counted as waiting until they are written: what is being written takes memory too.
        num_items = sum(len(shown.items) for shown in waiting)
        try:
            if num_items:
                write_segment(self._folder, self._table(waiting))
        except Exception:  # the disk is full, the folder or the store is gone: go on answering
            logger.exception("impressions cannot be written to %s", self._folder)
            with self._lock:
                self.num_dropped += num_items
        with self._lock:
            self._num_waiting -= num_items
        self._warn()

    def _warn(self) -> None:
        reported, at = self._warned
        if self.num_dropped > reported and time.monotonic() - at > WARN_S:
            logger.warning("%d shown items were not logged", self.num_dropped - reported)
            self._warned = (self.num_dropped, time.monotonic())

    def _table(self, waiting: Sequence[Shown]) -> pa.Table:
        lengths = [len(shown.items) for shown in waiting]

        def spread(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
            """A value a list -> one an item."""
            at = [number for number, length in enumerate(lengths) for _ in range(length)]
            return pa.array(values, kind).take(pa.array(at, pa.int64()))

        users = [
            None if each.user_id is None else self._pseudonym(each.user_id) for each in waiting
        ]
        items = [item for shown in waiting for item in shown.items]
        columns = {
            Col.request: spread([shown.request_id for shown in waiting], pa.string()),
            Col.user: spread(users, pa.string()),
            Col.item: pa.array([item["item_id"] for item in items], pa.string()),
            Col.position: pa.array(
                [place for length in lengths for place in range(1, length + 1)], pa.int32()
            ),
            Col.propensity: pa.array(
                [
                    chance
                    for shown in waiting
                    for chance in shown.propensities or [1.0] * len(shown.items)
                ],
                pa.float32(),
            ),
            Col.score: pa.array([item["score"] for item in items], pa.float32()),
            Col.model_version: spread([shown.model_version for shown in waiting], pa.string()),
            Col.timestamp: spread([shown.timestamp for shown in waiting], pa.int64()).cast(
                TIMESTAMP
            ),
            Col.arm: spread([shown.arm for shown in waiting], pa.string()),
            Col.placement: spread([shown.placement for shown in waiting], pa.string()),
        }
        return pa.table([columns[name] for name in IMPRESSIONS.names], schema=IMPRESSIONS)
