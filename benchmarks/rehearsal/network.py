"""Hosts as namespaces of this machine, joined by a bridge: each can be cut off and brought back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from benchmarks.rehearsal.host import HOME, READY, ROOT, WORK

#: All namespaces, and each process ends with the one that started it, whatever ends that one.
NAMESPACES = (
    "setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--uts", "--ipc", "--pid",
    "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
)  # fmt: skip
#: Addresses of the hosts: this with their number.
SUBNET = "10.77.0."
#: Of the bridge, where this process asks from: its number.
OUTSIDE = 1
BRIDGE = "rehearsal"


class Network:
    """A bridge in this process's own network namespace, and hosts at it.

    Args:
        names: of the hosts; the first one's address ends with 11.
        logs: folder that what they print goes to.
        environment: of all that runs on them.
    """

    def __init__(self, names: Sequence[str], logs: Path, environment: Mapping[str, str]) -> None:
        _ip("link", "set", "lo", "up")
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{SUBNET}{OUTSIDE}/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        table = ["127.0.0.1 localhost", *(f"{self.address(names, name)} {name}" for name in names)]
        self.hosts = {
            name: Host(name, self.address(names, name), "\n".join(table) + "\n", logs, environment)
            for name in names
        }

    @staticmethod
    def address(names: Sequence[str], name: str) -> str:
        """Address of a host of a network."""
        return f"{SUBNET}{OUTSIDE + 10 + names.index(name)}"

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]


class Host:
    """One host: namespaces of its own for network, processes, mounts and its name.

    Args:
        name: of the host.
        address: of it.
        table: its `/etc/hosts`.
        logs: folder that what runs on it prints to.
        environment: of what runs on it.

    Attributes:
        root: its files, seen from this process.
    """

    def __init__(
        self, name: str, address: str, table: str, logs: Path, environment: Mapping[str, str]
    ) -> None:
        self.name, self.address = name, address
        self._logs, self._link = logs, f"to-{name}"
        self._environment = {
            **environment, "HOME": str(HOME), "TMPDIR": "/tmp", "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
        }  # fmt: skip
        command = [sys.executable, "-m", "benchmarks.rehearsal.host", name, table]
        self._process = subprocess.Popen(
            [*NAMESPACES, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != READY:
            raise RuntimeError(f"{name} got no namespaces of its own")
        self._init = _child(self._process.pid)
        self.root = Path(f"/proc/{self._init}/root")
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0",
            "netns", str(self._init))  # fmt: skip
        _ip("link", "set", self._link, "master", BRIDGE, "up")
        for words in (
            ["link", "set", "lo", "up"],
            ["addr", "add", f"{self.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["route", "add", "default", "via", f"{SUBNET}{OUTSIDE}"],
        ):
            subprocess.run([*self._enter, "ip", *words], check=True)

    @property
    def _enter(self) -> list[str]:
        return ["nsenter", "--target", str(self._init), "--all"]

    @property
    def work(self) -> Path:
        """Its folder `WORK`, seen from this process."""
        return self.root / WORK.relative_to("/")

    def log(self, what: str) -> Path:
        """The file that something prints to."""
        return self._logs / f"{self.name}-{what}.log"

    def start(self, what: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a command in `WORK`; it prints to `log(what)`."""
        with self.log(what).open("ab") as out:
            return self._popen(command, out)

    def run(self, what: str, *command: str, timeout_s: float = 120) -> None:
        """Run a command to its end.

        Raises:
            RuntimeError: it failed; its last lines are told.
        """
        process = self.start(what, *command)
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise RuntimeError(f"{self.name}, {what}: not done after {timeout_s:.0f} s") from None
        if status:
            told = " | ".join(self.log(what).read_text(errors="replace").splitlines()[-3:])
            raise RuntimeError(f"{self.name}, {what} ended with {status}: {told}")

    def cut_off(self) -> None:
        """Take its link down: nothing comes, nothing goes, nobody is told."""
        _ip("link", "set", self._link, "down")

    def bring_back(self) -> None:
        """Take its link up."""
        _ip("link", "set", self._link, "up")

    def pids(self, text: str) -> list[int]:
        """Processes on it with a text in their command line, as this process numbers them."""
        mine, found = os.readlink(f"/proc/{self._init}/ns/pid"), []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                is_ours = os.readlink(process / "ns/pid") == mine
                if is_ours and text in (process / "cmdline").read_text(errors="replace"):
                    found.append(int(process.name))
        return found

    def restart(self) -> None:
        """End all that runs on it at once, as if it had lost its power; its files stay."""
        for pid in self.pids(""):
            if pid != self._init:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Take it away: all that runs on it ends, its files go."""
        self._process.kill()
        self._process.wait()

    def _popen(self, command: Sequence[str], out: IO[bytes]) -> subprocess.Popen[bytes]:
        in_work = ["sh", "-c", f'cd {WORK} && exec "$@"', "sh"]
        return subprocess.Popen(
            [*self._enter, *in_work, *command], env=self._environment, stdout=out,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip


def _child(parent: int) -> int:
    """The process that `unshare` started."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                # After the name, which may hold spaces: the state and the parent.
                if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                    return int(path.parent.name)
        time.sleep(0.05)
    raise RuntimeError("a host's first process is not to be found")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
