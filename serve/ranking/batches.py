"""Dynamic batching: one thread ranks, and requests that come while it works are the next batch.

No request waits for others to come: one that finds the thread free is ranked alone. One thread,
since all that rank share the interpreter's lock anyway: with a thread for every request, more time
went into handing it on than into ranking.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from recsys.ranking.encoded import MOST_HISTORIES, EncodedHistory
from recsys.recommender import Recommender
from serve.observability.metrics import Metrics
from serve.observability.trace import current
from serve.ranking.queries import Query


@dataclass(eq=False)
class _Job:
    """One request; see `Batches.submit`."""

    model: Recommender
    whole: bool
    query: Callable[[], Query]
    answer: Callable[[Query, EncodedHistory], Any]
    future: asyncio.Future[Any]
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    made: Query | None = None
    encoded: EncodedHistory | None = None
    outcome: Any = None
    error: BaseException | None = None

    def do(self, step: Callable[[], None]) -> None:
        """Run a step in the request's context; after an error no further one runs."""
        if self.error is None:
            try:
                self.context.run(step)
            except StopIteration as error:  # a future takes any other
                self.error = RuntimeError(repr(error))
            except BaseException as error:  # whatever it is, a caller waits
                self.error = error

    def make_query(self) -> None:
        current().record_stage("wait")
        self.made = self.query()
        current().record_stage("history")

    def make_answer(self) -> None:
        assert self.made is not None and self.encoded is not None
        self.outcome = self.answer(self.made, self.encoded)

    def settle(self) -> None:
        """Give the outcome to the caller, if it still waits."""
        if self.future.cancelled():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.outcome)


class Batches:
    """The thread that ranks.

    Args:
        metrics: count the requests that share a batch.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="rank", daemon=True)
        self._thread.start()

    async def submit(
        self,
        model: Recommender,
        query: Callable[[], Query],
        answer: Callable[[Query, EncodedHistory], Any],
        *,
        whole: bool,
    ) -> Any:
        """Have a request ranked in the thread; the outcome of `answer`.

        Args:
            model: ranks.
            query: makes the query; called in the thread, before the model encodes its history.
            answer: makes the answer from the query and its encoded history.
            whole: the whole catalogue is scored.

        Raises:
            Exception: whatever `query`, the model or `answer` raises.
        """
        current().record_stage("receive")
        future = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(model, whole, query, answer, future))
        return await future

    def close(self) -> None:
        """Answer what waits, then end."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            jobs = [self._jobs.get()]
            while len(jobs) < MOST_HISTORIES and jobs[-1] is not None:
                try:
                    jobs.append(self._jobs.get_nowait())
                except Empty:
                    break
            # Nothing is made for callers who have left meanwhile.
            self._answer([job for job in jobs if job is not None and not job.future.cancelled()])
            if jobs[-1] is None:
                return

    def _answer(self, jobs: Sequence[_Job]) -> None:
        of_pass: dict[tuple[int, bool], list[_Job]] = {}
        for job in jobs:
            job.do(job.make_query)
            if job.error is None:
                of_pass.setdefault((id(job.model), job.whole), []).append(job)
        for together in of_pass.values():
            self._metrics.observe("pass_requests", len(together))
            self._encode(together)
        for job in jobs:
            job.do(job.make_answer)
            with suppress(RuntimeError):  # its event loop is closed: nobody waits any more
                job.future.get_loop().call_soon_threadsafe(job.settle)

    def _encode(self, jobs: Sequence[_Job]) -> None:
        """Encode histories in one pass; one that the model cannot read fails alone."""
        queries = [job.made for job in jobs]
        try:
            found = jobs[0].model.encode(
                [query.history for query in queries if query is not None], whole=jobs[0].whole
            )
            for job, encoded in zip(jobs, found, strict=True):
                job.encoded = encoded
        except BaseException as error:
            if len(jobs) == 1:
                jobs[0].error = error
            else:
                for job in jobs:
                    self._encode([job])
