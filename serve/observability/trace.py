"""The trace of a request: its id, what its answer holds, and where its time goes."""

from __future__ import annotations

import time
import uuid
from contextvars import ContextVar

from serve.schemas.callers import ANYBODY, Caller
from serve.schemas.request_id import sane_id
from serve.schemas.responses import Basis


class Trace:
    """One request on its way through the service; its steps follow each other.

    Args:
        sent_id: the id that came with it; one is made if there is none or it is not sane.

    Attributes:
        id: of the request.
        seconds: what each stage took, see `metrics.METRICS`.
        model_version: the bundle that answered; None until it is known, as are the next three.
        basis: what the answer rests on.
        num_items: items in the answer.
        arm: the arm that answered.
        failed_arm: the arm that should have, and could not; None: none failed.
        caller: as authenticated.
    """

    __slots__ = (
        "_at",
        "_began",
        "arm",
        "basis",
        "caller",
        "failed_arm",
        "id",
        "model_version",
        "num_items",
        "seconds",
    )

    def __init__(self, sent_id: str | None = None) -> None:
        self.id = sane_id([] if sent_id is None else [sent_id]) or uuid.uuid4().hex
        self.seconds: dict[str, float] = {}
        self.model_version: str | None = None
        self.basis: Basis | None = None
        self.num_items: int | None = None
        self.arm: str | None = None
        self.failed_arm: str | None = None
        self.caller: Caller = ANYBODY
        self._began = self._at = time.perf_counter()

    def record_stage(self, stage: str) -> None:
        """Add the time since the last stage, or since the beginning, to this one."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._at
        self._at = now

    def elapsed(self) -> float:
        """Seconds since the request came."""
        return time.perf_counter() - self._began


_current: ContextVar[Trace | None] = ContextVar("raycommend_request", default=None)


def begin_trace(sent_id: str | None) -> Trace:
    """Make a request the current one of this task, and of the threads that work for it."""
    trace = Trace(sent_id)
    _current.set(trace)
    return trace


def current() -> Trace:
    """The request that is being answered; outside of any, a new one that nobody watches."""
    return _current.get() or Trace()


def current_id() -> str:
    """Its id."""
    return current().id
