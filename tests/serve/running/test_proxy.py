"""A proxy that is killed comes again."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from load import Load
from running_service import Running

pytestmark = [pytest.mark.serve, pytest.mark.ray]

#: Seconds until a proxy that was killed answers again, at most.
PROXY_BACK_S = 60


@pytest.mark.chaos
@pytest.mark.parametrize("process", ["haproxy.cfg", "HAProxyManager"])
def test_a_proxy_that_is_killed_comes_again(running: Running, bundle: Path, process: str) -> None:
    """HAProxy, and the actor that watches it; the replicas go on."""

    def found() -> set[int]:
        return {pid for pid, name in running.marked().items() if process in name}

    running.scale(2, bundle)
    replicas = running.answering()
    with Load(running, num_clients=1) as load:
        time.sleep(1)
        killed: set[int] = set()
        for pid in found():
            with contextlib.suppress(ProcessLookupError):  # the one before a reload may be ending
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        assert killed
        began = answered = back = time.monotonic()
        num, gap = len(load.versions), 0.0
        while answered < back + 3:  # it is there, and has been answering for a while
            time.sleep(0.1)
            now = time.monotonic()
            assert now < began + PROXY_BACK_S, running.marked()
            if not found() - killed:
                back = now
            if len(load.versions) > num:
                num, gap, answered = len(load.versions), max(gap, now - answered), now
    print(f"{process}: {gap:.1f} s without an answer, {len(load.broken)} requests broken")
    # HAProxy starts before it is told of the application.
    assert all(each.startswith("503: no application") for each in load.refused), load.refused
    assert running.answering() <= replicas  # one that was ending may have ended
