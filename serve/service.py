"""The service without HTTP and without Ray: a model that can be swapped, users, and answers."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.bundle import Bundle
from recsys.errors import BundleError, DataError, RaycommendError
from recsys.feedback import Feedback
from recsys.recommender import Recommender
from recsys.schema import EVENT_CODE
from recsys.state import StateEvent, clock_us
from serve import answering
from serve.api import MAX_NEW_ITEMS, Event, RankRequest, RecommendRequest
from serve.impressions import Impressions, Log, NoImpressions, Shown
from serve.metrics import Metrics, Unkept
from serve.problems import Refused, Unavailable
from serve.queries import EventTypes, Query, from_session, from_user
from serve.requests import current
from serve.settings import Settings
from serve.users import Users

logger = logging.getLogger("ray.serve")

#: Encodes new items with the language model of a bundle: (folder, version, fields of each) ->
#: [M, H], rows of NaN where the fields make no text.
Encode = Callable[[Path, str, list[dict[str, str | None]]], Awaitable[NDArray[np.float32]]]

#: Threads for scoring and reading. Scoring holds Python's lock for much of its time: more threads
#: would only add waiting. Writes wait for the disk and for each other, and have a thread apart.
NUM_THREADS = 4
#: Seconds for which a store that could not be read is not asked again.
STORE_RESTS_S = 1.0


@dataclass(frozen=True)
class Served:
    """A model, the folder it came from, and what became of the log's users."""

    folder: Path
    model: Recommender
    log: str


class Service:
    """Everything the routes do.

    Args:
        settings: limits, event names, store and key.
        encode: see `Encode`.
        metrics: what is measured goes there.

    Attributes:
        keys: the API keys that may ask; None: whoever reaches the service may.
        origins: web pages that may ask from a browser.
        log_requests: the share of requests that is logged.
        metrics: as above.
        ongoing: requests in work.
    """

    def __init__(self, settings: Settings, encode: Encode, metrics: Metrics | None = None) -> None:
        self._settings, self._encode = settings, encode
        self._types = EventTypes(settings.event_types)
        self._users = Users(settings)
        shown = Feedback.of(settings.root).impressions
        is_logged = settings.serve.impressions
        self._impressions: Log = (
            Impressions(shown, self._users.pseudonym) if is_logged else NoImpressions()
        )
        self.keys = self._users.api_keys()
        self.origins = settings.serve.access.origins
        self.log_requests = settings.serve.log_requests
        self.metrics = metrics or Unkept()
        self.ongoing = 0
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="answer")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._swapping = asyncio.Lock()
        self._served: Served | None = None
        self._failed_update: str | None = None
        self._store_rests_until = float("-inf")
        self._last_write = time.time()

    @property
    def served(self) -> Served:
        """What is served now; a request takes it once, so that a swap cannot part its steps."""
        if self._served is None:
            raise Unavailable("no model is loaded yet")
        return self._served

    async def load(self, folder: Path, version: str) -> None:
        """Serve another bundle: load and try it aside, then swap; else the last good one stays.

        Args:
            folder: where it lies.
            version: which one is meant: a folder's content may be replaced.

        Raises:
            Exception: whatever loading raises, but only if there is no last good one.
        """
        async with self._swapping:
            now = self._served
            if now is not None and (now.folder, now.model.version) == (folder, version):
                self._failed_update = None
                return
            try:
                served = await asyncio.to_thread(self._loaded, folder, version)
                vectors = await self._encode(folder, version, [{"title": "a new item"}])
                _check_finite(vectors, folder)
            except Exception as error:
                if self._served is None:
                    raise
                self._failed_update = _reason(error)
                logger.exception("keeping %s: %s", self._served.model.version, folder)
                return
            self._served, self._failed_update = served, None
            logger.info("serving %s", version)

    async def recommend(self, request: RecommendRequest) -> bytes:
        """The JSON answer to `POST /recommend`."""
        limits, model = self._settings.serve, self.served.model
        if request.k is not None and request.k > limits.max_k:
            raise Refused(("k",), f"at most {limits.max_k}", kind="too_large")

        def answer() -> bytes:
            query = self._query(model, request)
            current().lap("history")
            return self._logged(answering.recommend(model, query, request, limits), request)

        return await self._in_thread(answer, self._threads)

    async def rank(self, request: RankRequest) -> bytes:
        """The JSON answer to `POST /rank`."""
        most, served = self._settings.serve.max_candidates, self.served
        if len(request.candidates) > most:
            raise Refused(("candidates",), f"at most {most} candidates", kind="too_many")
        if request.k is not None and request.k > most:
            raise Refused(("k",), f"at most {most}", kind="too_large")
        vectors = await self._text_vectors(served, request)

        def answer() -> bytes:
            query = self._query(served.model, request)
            current().lap("history")
            return self._logged(answering.rank(served.model, query, request, vectors), request)

        return await self._in_thread(answer, self._threads)

    async def store(self, events: Sequence[Event], *, single: bool) -> bytes:
        """The JSON answer to `POST /events`; `single`: the request is one event, not a list."""
        model = self.served.model

        def answer() -> bytes:
            stored, ignored = self._users.store(events, self._types, single=single)
            ids = list(dict.fromkeys(event.item_id for event in events))
            rows = model.rows_of(ids)
            if stored:
                self._last_write = time.time()
            current().lap("store")
            return answering.to_json(
                {
                    "received": len(events),
                    "stored": stored,
                    "ignored": ignored,
                    "unknown_items": [i for i, row in zip(ids, rows, strict=True) if row < 0],
                }
            )

        return await self._in_thread(answer, self._writer)

    async def erase(self, user_id: str) -> bytes:
        """The JSON answer to `DELETE /users/{user_id}`."""

        def answer() -> bytes:
            return answering.to_json({"erased": self._users.erase(user_id)})

        return await self._in_thread(answer, self._writer)

    def close(self) -> None:
        """Write what waits to be written; nothing can be asked after."""
        for threads in (self._threads, self._writer):
            threads.shutdown()
        self._impressions.close()
        self._users.close()

    async def check(self) -> str:
        """The served version, if requests can be answered.

        Raises:
            Unavailable: there is no model yet.
            DataError: the store cannot be read.
        """
        model = self.served.model
        await self._in_thread(self._users.ping, self._threads)
        return model.version

    def report(self) -> None:
        """Set the gauges; again and again, as Ray drops what it has not heard of for a while."""
        self.metrics.set("ongoing_requests", self.ongoing)
        self.metrics.set("failed_update", self._failed_update is not None)
        self.metrics.set("last_write_timestamp_seconds", self._last_write)
        if self._served is not None:
            self.metrics.set("model_info", 1, version=self._served.model.version)

    def describe(self) -> dict[str, Any]:
        """The answer to `GET /model`."""
        served = self.served
        return {
            "version": served.model.version,
            "num_items": served.model.num_items,
            "info": served.model.info,
            "log": served.log,
            "failed_update": self._failed_update,
        }

    def _loaded(self, folder: Path, version: str) -> Served:
        bundle = Bundle.open(folder)
        bundle.must_be(version)
        self._users.check_key(bundle)
        model = Recommender(bundle)
        for events in ([], [StateEvent("", "", model.item_id(0), EVENT_CODE["view"], 0)]):
            history = from_user(model, events, clock_us=clock_us()).history
            _check_finite(model.scorer.scores(history), folder)
        return Served(folder, model, self._users.seed(bundle))

    def _query(self, model: Recommender, request: RecommendRequest | RankRequest) -> Query:
        now = clock_us()
        if request.user_id is not None:
            events = self._history(request.user_id)
            query = from_user(model, events or [], clock_us=now)
            return query if events is not None else replace(query, degraded=True)
        assert request.history is not None  # the request's own check
        latest = now + self._settings.max_skew_us
        return from_session(model, request.history, self._types, clock_us=now, latest_us=latest)

    def _history(self, user_id: str) -> list[StateEvent] | None:
        """A user's events; None if the store cannot be read: a worse answer beats none.

        A store that failed is left alone for a while, or every request would wait for it.
        """
        if time.monotonic() < self._store_rests_until:
            return None
        try:
            return self._users.history(user_id)
        except DataError as error:
            self._store_rests_until = time.monotonic() + STORE_RESTS_S
            logger.error("for %g s users are answered as strangers: %s", STORE_RESTS_S, error)
            return None

    def _logged(self, answer: answering.Answer, request: RecommendRequest | RankRequest) -> bytes:
        """Have an answered list logged; the body."""
        self._impressions.offer(
            Shown(
                answer.request_id, request.user_id, answer.items, answer.model_version, clock_us()
            )
        )
        return answer.body

    async def _text_vectors(self, served: Served, request: RankRequest) -> NDArray[np.float32]:
        new = answering.new_items(request)
        if not new:
            return np.zeros((0, 0), dtype=np.float32)
        if len(new) > MAX_NEW_ITEMS:
            raise Refused(("candidates",), f"at most {MAX_NEW_ITEMS} new items", kind="too_many")
        fields = [item.model_dump(exclude={"price", "item_id"}) for item in new.values()]
        self.metrics.observe("text_batch_items", len(fields))
        trace = current()
        trace.lap("receive")
        vectors = await self._encode(served.folder, served.model.version, fields)
        trace.lap("text")
        for place, vector in zip(new, vectors, strict=True):
            if np.isnan(vector).any():
                msg = "no field that the model reads is filled"
                raise Refused(("candidates", place), msg, kind="text")
        return vectors

    async def _in_thread(self, function: Callable[[], Any], threads: ThreadPoolExecutor) -> Any:
        trace, context = current(), contextvars.copy_context()
        trace.lap("receive")

        def started() -> Any:
            trace.lap("wait")
            return function()

        return await asyncio.get_running_loop().run_in_executor(threads, context.run, started)


def _check_finite(values: NDArray[np.float32], folder: Path) -> None:
    if not np.isfinite(values).all():
        raise BundleError(
            "its scores are not finite: the model has diverged", where=folder, mend="train again"
        )


def _reason(error: Exception) -> str:
    """What `GET /model` tells of a failed update: no paths, no stack trace."""
    if isinstance(error, RaycommendError):
        return error.problem
    return str(error) if isinstance(error, Unavailable) else type(error).__name__
