"""Clients that send half a request, or a byte a second."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from load import Load
from running_service import Running

pytestmark = [pytest.mark.serve, pytest.mark.ray]


@pytest.mark.chaos
def test_slow_clients_are_told_off_and_nobody_waits_for_them(running: Running) -> None:
    """Thousands that send half a request, and those that send a body byte by byte."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most[1], most[1]))
    address, host = ("127.0.0.1", running.ports[0]), f"Host: shop\r\n{'X: y'}\r\n"
    half = f"POST /recommend HTTP/1.1\r\n{host}Conte".encode()
    body = f"POST /recommend HTTP/1.1\r\n{host}Content-Length: 9000\r\n\r\n".encode()
    told: Counter[str] = Counter()
    slow = []

    def drip(number: int) -> None:
        """A body at a byte a second, until there is an answer."""
        with socket.create_connection(address) as sock:
            sock.sendall(body)
            sock.settimeout(1)
            for _ in range(40):
                with contextlib.suppress(TimeoutError):
                    told[f"drip {sock.recv(12).decode()}"] += 1
                    return
                sock.sendall(b" ")
        told["drip forever"] += 1

    try:
        with Load(running, num_clients=2) as load, ThreadPoolExecutor(8) as dripping:
            began = time.monotonic()
            for _ in range(min(4200, most[1] - 1000)):
                sock = socket.create_connection(address)
                sock.sendall(half)
                slow.append(sock)
            dripping.map(drip, range(8))
            healthy, slowest_s = 0, 0.0
            while time.monotonic() < began + 15 or healthy < 20:
                asked = time.monotonic()
                assert httpx.get(f"{running.url}/healthz", timeout=30).status_code == 200
                healthy, slowest_s = healthy + 1, max(slowest_s, time.monotonic() - asked)
                time.sleep(0.1)
            load.wait_for(20)
        for sock in slow:
            sock.settimeout(30)
            told[sock.recv(12).decode()] += 1
    finally:
        for sock in slow:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
    print(f"slowest health {slowest_s:.2f} s, slowest answer {load.slowest_s:.2f} s, {told}")
    assert told == {"HTTP/1.1 408": len(slow), "drip HTTP/1.1 408": 8}
    assert (load.refused, load.broken) == ([], [])
    assert max(slowest_s, load.slowest_s) < 5
