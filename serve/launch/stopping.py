"""Graceful shutdown: balancers turn away, requests in work are answered, the port closes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from recsys.storage.scratch import Process, Scratch, alive

#: Seconds that requests in work get once the port is closed, and that replicas get to obey.
ANSWER_S, OBEY_S = 4.0, 2.0


def drain(scratch: Scratch, grace_s: float) -> None:
    """Take a service of this machine out of traffic; the caller ends its processes.

    First `/readyz` says 503 while everything is still answered, so that balancers turn away. Then
    HAProxy takes no more connections and answers what it has.

    Args:
        scratch: of the service.
        grace_s: seconds between the two.
    """
    import ray
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    from serve.ray.app import NAME

    async def broadcast(method: str) -> None:
        # A replica that is dead or slow does not keep the others from it.
        with suppress(RayError, RayServeException, TimeoutError):
            asked = serve.get_app_handle(NAME).broadcast(method)
            await asked.results_async(timeout_s=OBEY_S, return_exceptions=True)

    async def drained() -> None:
        await broadcast("drain")
        await asyncio.sleep(grace_s)
        # Serve's controller would start a new HAProxy in the place of the one that ends.
        with suppress(RayError, RayServeException):
            client = serve.context._get_global_client() if ray.is_initialized() else None
            if client is not None:
                ray.kill(client._controller)
        await asyncio.to_thread(close_proxies, scratch)
        await broadcast("close")

    asyncio.run(drained())


def close_proxies(scratch: Scratch, patience_s: float = ANSWER_S) -> None:
    """Make HAProxy close its ports; wait until it has answered what it took."""
    for pid, _ in proxies(scratch):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)
    deadline = time.monotonic() + patience_s
    while proxies(scratch) and time.monotonic() < deadline:
        time.sleep(0.05)


def proxies(scratch: Scratch) -> set[Process]:
    """The HAProxy processes of a service, also those that only answer their last requests."""
    return {
        (pid, began)
        for pid, began in scratch.processes() & alive().keys()
        if _program(pid).name == "haproxy"
    }


def _program(pid: int) -> Path:
    try:
        return Path(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return Path()
