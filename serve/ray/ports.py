"""Ports: check those that the recipe names, reserve those of the replicas."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass

from recsys.config import Serve
from recsys.errors import DataError

#: HAProxy's own ports: environment variable, Ray's default.
METRICS_PORT = ("RAY_SERVE_HAPROXY_METRICS_PORT", 9101)
STATS_PORT = ("RAY_SERVE_HAPROXY_STATS_PORT", 8404)

#: Where blocks lie, and how many ports one has: below the ports that Linux gives to connections
#: (32768 and up), and beside those that Serve takes where nobody chooses (30000 and 40000).
FIRST, END, BLOCK = 20_000, 30_000, 500


@dataclass(frozen=True)
class Block:
    """A block of ports that no other service of this machine takes while this one lives.

    With ports in common, one service's proxy would ask replicas of the other where its own have
    just ended. For gRPC not even two replicas would notice: they would share a port, and the kernel
    would deal out the connections (Serve sets `grpc.so_reuseport` to the text "0", which counts as
    not set; Ray 2.60).

    Attributes:
        first: port; it is bound and nobody listens on it. That reserves the block: the kernel lets
            one process bind it, and lets go of it however that process ends.
    """

    first: int
    _reserved: socket.socket

    @staticmethod
    def reserve() -> Block:
        """Reserve the first free block.

        Raises:
            DataError: none is.
        """
        for first in range(FIRST, END, BLOCK):
            reserved = socket.socket()
            try:
                reserved.bind(("127.0.0.1", first))
                _probe("0.0.0.0", first + 1)
                _probe("0.0.0.0", first + 2)
            except OSError:
                reserved.close()
                continue
            return Block(first, reserved)
        raise DataError(
            "no block of ports is free for the replicas", field="ports", value=f"{FIRST} to {END}",
            fix="end a service on this machine, or what listens there (`ss -ltnp`)",
        )  # fmt: skip

    @property
    def variables(self) -> list[dict[str, str]]:
        """Environment variables for Serve; those of one dictionary go together."""
        half = self.first + BLOCK // 2
        chosen: list[dict[str, int]] = [
            # Serve's own proxy, which HAProxy turns to while it takes no replica for healthy.
            {"RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": self.first + 1},
            {"RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": self.first + 2},
            {
                "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": self.first + 3,
                "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": half - 1,
            },
            {
                "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": half,
                "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": self.first + BLOCK - 1,
            },
        ]
        return [{name: str(port) for name, port in each.items()} for each in chosen]

    def release(self) -> None:
        """Free the block."""
        self._reserved.close()


def check_ports(settings: Serve) -> None:
    """Refuse to start where another program listens.

    Raises:
        DataError: a port is taken, or the host is none of this machine.
    """
    wanted = {"serve.port": settings.port}
    _check(settings.host, settings.port, "serve.port", "set another serve.port")
    if settings.grpc_port is not None:
        wanted["serve.grpc_port"] = settings.grpc_port
        _check(settings.host, settings.grpc_port, "serve.grpc_port", "set another serve.grpc_port")
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1":
        for name, default in (METRICS_PORT, STATS_PORT):
            text = os.environ.get(name, str(default))
            if not text.isdecimal() or not 0 < (port := int(text)) < 65536:
                raise DataError(
                    "not a port", field=name, value=text, fix="set a number from 1 to 65535"
                )
            wanted[name] = port
            _check("0.0.0.0", port, name, f"set another {name} in the environment")
    for name, port in wanted.items():
        if (first := next(each for each, other in wanted.items() if other == port)) != name:
            raise DataError(
                f"{first} and {name} are the same port", field=name, value=port,
                fix="set another one for one of them",
            )  # fmt: skip


def _check(host: str, port: int, field: str, fix: str) -> None:
    try:
        _probe(host, port)
    except PermissionError:
        raise DataError(
            "no right to listen on this port", field=field, value=port, fix=fix
        ) from None
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise DataError(
                f"cannot listen here: {error.strerror}", field="serve.host", value=host,
                fix="set serve.host to an address of this machine",
            ) from None  # fmt: skip
        raise DataError(
            "port in use", field=field, value=port,
            fix=f"end what listens there (`ss -ltnp 'sport = :{port}'`), or {fix}",
        ) from None  # fmt: skip


def _probe(host: str, port: int) -> None:
    """Raise `OSError` where nobody could listen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As HAProxy does it: connections of a service that has just ended do not count as in use.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
