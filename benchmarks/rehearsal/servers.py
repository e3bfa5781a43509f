"""What the hosts share, on one of its own: an S3-compatible server, and Valkey or Redis."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.rehearsal.network import Host
from benchmarks.state.redis_server import server_binary
from recsys.storage.location import Location

BUCKET = "shop"
S3_PORT, REDIS_PORT = 9000, 6379
#: What S3's clients sign with, and what the other server asks for: nobody else reaches them.
_KEY, _PASSWORD = "rehearsal", "rehearsal"


def where_they_are(address: str) -> dict[str, str]:
    """The environment by which the other hosts find them."""
    return {
        "AWS_ENDPOINT_URL": f"http://{address}:{S3_PORT}",
        "AWS_ACCESS_KEY_ID": _KEY,
        "AWS_SECRET_ACCESS_KEY": _KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "RAYCOMMEND_REDIS_URL": f"redis://:{_PASSWORD}@{address}:{REDIS_PORT}/0",
    }


class Servers:
    """Both servers on a host, and one bucket.

    Args:
        host: where they run.
    """

    def __init__(self, host: Host) -> None:
        self._host, binary = host, server_binary()
        assert binary is not None, "looked for before"
        program = str(Path(sys.executable).with_name("moto_server"))
        host.start("s3", program, "-H", host.address, "-p", str(S3_PORT))
        host.start(
            "redis", binary, "--port", str(REDIS_PORT), "--bind", host.address, "--save", "",
            "--requirepass", _PASSWORD, "--dir", "/tmp",
        )  # fmt: skip
        for port in (S3_PORT, REDIS_PORT):
            _wait_for(host.address, port)
        # The server looks at no signature.
        url = f"http://{host.address}:{S3_PORT}/{BUCKET}"
        urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=30).close()

    def upload(self, folder: Path, prefix: str) -> None:
        """Put the files of a folder into the bucket."""
        there = Location(f"s3://{BUCKET}/{prefix}")
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                there.upload(path, path.relative_to(folder).as_posix())

    def requests(self, text: str) -> int:
        """How many requests with a text in them the S3 server has had."""
        return self._host.log("s3").read_text(errors="replace").count(text)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """In the block the S3 server takes connections and says nothing."""
        pids = self._host.pids("moto_server")
        assert pids, "the S3 server has ended"
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)


def _wait_for(address: str, port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((address, port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
