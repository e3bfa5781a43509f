"""Shadow arms never answer: they rank the same query after an answer, and are compared with it.

An answer is put into a short queue, which takes microseconds and never waits; one thread works it
off. Where shadows are slower than answers come, the queue fills; further answers are counted and
not compared: a comparison may be missed, an answer may not be late.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recsys.evaluation.metrics.agreement import overlap, rank_biased_overlap
from serve.models.arms import ServedArm
from serve.observability.metrics import Metrics
from serve.ranking.answers import Answer

logger = logging.getLogger("ray.serve")

#: Answers that wait at most; each holds its query.
MAX_WAITING = 64


@dataclass(frozen=True)
class Comparison:
    """An answer that shadows are compared with.

    Attributes:
        request_id: of the answer.
        arm: the arm that answered.
        items: ids of its items, in the order to show.
        shadows: arms that rank the same.
        rank: the answer of another arm to the same request.
    """

    request_id: str
    arm: str
    items: Sequence[str]
    shadows: Sequence[ServedArm]
    rank: Callable[[ServedArm], Answer]


class Shadows:
    """Compares in one thread a replica, started by the first answer that is to be compared.

    Args:
        metrics: the figures go there.
        log_share: share of the comparisons that is logged, a line each.
    """

    def __init__(self, metrics: Metrics, log_share: float) -> None:
        self._metrics, self._log_share = metrics, log_share
        self._waiting: queue.Queue[Comparison | None] = queue.Queue(MAX_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def offer(self, comparison: Comparison) -> None:
        """Queue an answer for comparison; returns at once."""
        if self._thread is None:
            self._start()
        try:
            self._waiting.put_nowait(comparison)
        except queue.Full:
            for arm in comparison.shadows:
                self._metrics.count("shadow_lists_total", arm=arm.name, result="dropped")

    def close(self) -> None:
        """Compare what waits, then end; what is offered afterwards is not compared."""
        with self._lock:
            self._is_closed = True
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while (comparison := self._waiting.get()) is not None:
            for arm in comparison.shadows:
                self._compare(comparison, arm)

    def _compare(self, comparison: Comparison, arm: ServedArm) -> None:
        began = time.perf_counter()
        try:
            items = [item["item_id"] for item in comparison.rank(arm).items]
        except Exception:  # a broken model, a catalogue without the candidates
            self._metrics.count("shadow_lists_total", arm=arm.name, result="failed")
            logger.exception("shadow arm %s cannot rank", arm.name)
            return
        seconds = time.perf_counter() - began
        shared, biased = (
            overlap(comparison.items, items),
            rank_biased_overlap(comparison.items, items),
        )
        self._metrics.count("shadow_lists_total", arm=arm.name, result="compared")
        self._metrics.observe("shadow_overlap", shared, arm=arm.name)
        self._metrics.observe("shadow_rank_biased_overlap", biased, arm=arm.name)
        self._metrics.observe("shadow_seconds", seconds, arm=arm.name)
        if random.random() < self._log_share:
            logger.info(
                "shadow",
                extra={
                    "request_id": comparison.request_id,
                    "arm": comparison.arm,
                    "shadow": arm.name,
                    "shadow_version": arm.model.version,
                    "num_items": len(comparison.items),
                    "overlap": round(shared, 4),
                    "rank_biased_overlap": round(biased, 4),
                    "milliseconds": round(1000 * seconds, 1),
                },
            )
