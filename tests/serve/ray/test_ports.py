"""Ports that are taken, named twice, or all gone."""

from __future__ import annotations

import socket

import pytest

from recsys.config import Recipe
from recsys.errors import DataError
from serve.ray.ports import BLOCK, END, FIRST, Block, check_ports

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


def serve_of(recipe: Recipe, **changes: object) -> object:
    return recipe.serve.model_copy(update=changes)


def test_free_ports_pass(recipe: Recipe, free_ports: dict[str, int]) -> None:
    check_ports(serve_of(recipe, port=free_ports["http"]))


@pytest.mark.parametrize(
    ("taken", "field"),
    [
        ("http", "serve.port"),
        ("grpc", "serve.grpc_port"),
        ("RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT"),
        ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT"),
    ],
)
def test_a_taken_port_is_named(
    recipe: Recipe, free_ports: dict[str, int], taken: str, field: str
) -> None:
    with (
        socket.create_server(("127.0.0.1", free_ports[taken])),
        pytest.raises(DataError, match="port in use") as caught,
    ):
        check_ports(serve_of(recipe, port=free_ports["http"], grpc_port=free_ports["grpc"]))
    assert (caught.value.field, caught.value.value) == (field, free_ports[taken])


@pytest.mark.parametrize("other", ["grpc", "RAY_SERVE_HAPROXY_STATS_PORT"])
def test_a_port_that_is_named_twice_is_refused(
    recipe: Recipe, free_ports: dict[str, int], monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    port, grpc_port = free_ports["http"], free_ports["grpc"]
    if other == "grpc":
        grpc_port = port
    else:
        monkeypatch.setenv(other, str(port))
    with pytest.raises(DataError, match="are the same port") as error:
        check_ports(serve_of(recipe, port=port, grpc_port=grpc_port))
    assert error.value.value == port


def test_a_host_of_another_machine_is_named(recipe: Recipe) -> None:
    with pytest.raises(DataError) as caught:
        check_ports(serve_of(recipe, host="192.0.2.1"))
    assert caught.value.field == "serve.host"


def test_where_all_ports_are_taken_that_is_said() -> None:
    blocks = []
    with pytest.raises(DataError, match="no block of ports is free"):
        for _ in range((END - FIRST) // BLOCK + 1):
            blocks.append(Block.reserve())
    for block in blocks:
        block.release()
