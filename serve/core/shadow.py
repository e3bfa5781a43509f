"""Arms that never answer: after an answer they rank the same query, and are compared with it.

An answer is put into a short queue, which takes microseconds and never waits; one thread works it
off. Where shadows are slower than answers come, the queue fills, and what comes beside is counted
and not compared: a comparison may be missed, an answer may not be late.
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
from recsys.recommender import Recommender
from serve.core.answer_flow import Answer
from serve.core.arms import ServedArm
from serve.observability.metrics import Metrics

logger = logging.getLogger("ray.serve")

#: Answers that wait at most; each holds its query.
MAX_WAITING = 64


@dataclass(frozen=True)
class Asked:
    """An answer that shadows are compared with.

    Attributes:
        request_id: of the answer.
        arm: the arm that answered.
        items: what it answered, in the order to show.
        shadows: what ranks the same.
        rank: the answer of another model to the same request.
    """

    request_id: str
    arm: str
    items: Sequence[str]
    shadows: Sequence[ServedArm]
    rank: Callable[[Recommender], Answer]


class Shadows:
    """Compares; one thread a replica, started by the first answer that is to be compared.

    Args:
        metrics: the figures go there.
        log_share: share of the comparisons that is logged, a line each.
    """

    def __init__(self, metrics: Metrics, log_share: float) -> None:
        self._metrics, self._log_share = metrics, log_share
        self._waiting: queue.Queue[Asked | None] = queue.Queue(MAX_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def offer(self, asked: Asked) -> None:
        """Compare an answer, some time; returns at once."""
        if self._thread is None:
            self._start()
        try:
            self._waiting.put_nowait(asked)
        except queue.Full:
            for arm in asked.shadows:
                self._metrics.count("shadow_lists_total", arm=arm.name, result="dropped")

    def close(self) -> None:
        """Compare what waits, then end; what is offered after is not compared."""
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
        while (asked := self._waiting.get()) is not None:
            for arm in asked.shadows:
                self._compare(asked, arm)

    def _compare(self, asked: Asked, arm: ServedArm) -> None:
        began = time.perf_counter()
        try:
            items = [item["item_id"] for item in asked.rank(arm.model).items]
        except Exception:  # a broken model, a catalogue without the candidates
            self._metrics.count("shadow_lists_total", arm=arm.name, result="failed")
            logger.exception("shadow arm %s cannot rank", arm.name)
            return
        seconds = time.perf_counter() - began
        shared, biased = overlap(asked.items, items), rank_biased_overlap(asked.items, items)
        self._metrics.count("shadow_lists_total", arm=arm.name, result="compared")
        self._metrics.observe("shadow_overlap", shared, arm=arm.name)
        self._metrics.observe("shadow_rank_biased_overlap", biased, arm=arm.name)
        self._metrics.observe("shadow_seconds", seconds, arm=arm.name)
        if random.random() < self._log_share:
            logger.info(
                "shadow",
                extra={
                    "request_id": asked.request_id,
                    "arm": asked.arm,
                    "shadow": arm.name,
                    "shadow_version": arm.model.version,
                    "num_items": len(asked.items),
                    "overlap": round(shared, 4),
                    "rank_biased_overlap": round(biased, 4),
                    "milliseconds": round(1000 * seconds, 1),
                },
            )
