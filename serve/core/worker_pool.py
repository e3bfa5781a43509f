"""Threads that work for requests, beside the event loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from serve.observability.trace import current

Result = TypeVar("Result")


class WorkerPool:
    """A thread pool; what runs in it belongs to the request that asked for it.

    The wait for a thread is recorded as the request's stage `wait`.

    Args:
        num_threads: at most.
        name: prefix of the threads' names.
    """

    def __init__(self, num_threads: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix=name)

    async def run(self, function: Callable[[], Result]) -> Result:
        """Call a function in a thread, with the context variables of the caller."""
        trace, context = current(), contextvars.copy_context()
        trace.record_stage("receive")

        def started() -> Result:
            trace.record_stage("wait")
            return function()

        return await asyncio.get_running_loop().run_in_executor(self._threads, context.run, started)

    def close(self) -> None:
        """Finish what was accepted, then end the threads."""
        self._threads.shutdown()
