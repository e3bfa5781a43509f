"""Load on a running service."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx
from running_service import Running


class Load:
    """Clients that ask without a pause while the block runs, and what they were answered."""

    def __init__(
        self, running: Running, num_clients: int = 4, path: str = "/recommend", **body: Any
    ) -> None:
        self._running, self._done = running, threading.Event()
        self._path, self._body = path, body
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(num_clients)]
        self.versions: list[str] = []
        self.broken: list[str] = []
        self.refused: list[str] = []
        self.slowest_s = 0.0

    def _ask(self, number: int) -> None:
        url, headers = self._running.url, self._running.headers
        with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
            while not self._done.is_set():
                began = time.monotonic()
                try:
                    response = client.post(self._path, json=self._body | {"user_id": f"u{number}"})
                except httpx.HTTPError as error:
                    self.broken.append(repr(error))
                    continue
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                if response.status_code == 200:
                    self.versions.append(response.json()["model_version"])
                else:
                    self.refused.append(f"{response.status_code}: {response.text}")

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def wait_for(self, num: int) -> None:
        """Return after `num` more good answers; fail after a minute without them."""
        num, deadline = num + len(self.versions), time.monotonic() + 60
        while len(self.versions) < num:
            assert time.monotonic() < deadline, f"{len(self.versions)} of {num} answers"
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
