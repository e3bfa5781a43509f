"""Ports that must be free before anything is started."""

from __future__ import annotations

import errno
import os
import socket

from recsys.config import Serve
from recsys.errors import DataError

#: HAProxy's own ports: environment variable, Ray's default.
METRICS_PORT = ("RAY_SERVE_HAPROXY_METRICS_PORT", 9101)
STATS_PORT = ("RAY_SERVE_HAPROXY_STATS_PORT", 8404)


def check_ports(settings: Serve) -> None:
    """Refuse to start where another program listens.

    Raises:
        DataError: a port is taken, or the host is none of this machine.
    """
    _check(settings.host, settings.port, "serve.port", "set another serve.port")
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1":
        for name, default in (METRICS_PORT, STATS_PORT):
            text = os.environ.get(name, str(default))
            if not text.isdecimal() or not 0 < (port := int(text)) < 65536:
                raise DataError(
                    "not a port", field=name, value=text, mend="set a number from 1 to 65535"
                )
            _check("0.0.0.0", port, name, f"set another {name} in the environment")


def _check(host: str, port: int, field: str, mend: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As HAProxy does it: connections of a service that has just ended do not count as in use.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            raise DataError(
                "no right to listen on this port", field=field, value=port, mend=mend
            ) from None
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise DataError(
                    f"cannot listen here: {error.strerror}", field="serve.host", value=host,
                    mend="set serve.host to an address of this machine",
                ) from None  # fmt: skip
            raise DataError(
                "port in use", field=field, value=port,
                mend=f"end what listens there (`ss -ltnp 'sport = :{port}'`), or {mend}",
            ) from None  # fmt: skip
