"""What listens, and what it asks, is what the documentation says."""

from __future__ import annotations

import socket

import grpc
import httpx
import pytest
from running_service import ROOT, Running

from serve.ray.ports import END, FIRST

pytestmark = [pytest.mark.serve, pytest.mark.ray]

#: Methods of Ray's own servers over gRPC; each has one.
RAYS_METHODS = [
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.ReporterService/GetTraceback",
    "/ray.serve.ASGIService/HandleRequest",
]
OURS = "/raycommend.v1.Ranking/Recommend"
AGENT = "52365, unless it is taken"


def asks_for(address: str, port: int) -> str:
    """What a server wants to see before it answers, in the words of the documentation."""
    host = "127.0.0.1" if address in ("0.0.0.0", "::") else address
    url = f"http://{host}:{port}"
    try:
        if httpx.get(f"{url}/metrics", timeout=10).status_code == 200:
            return "nothing"
        said = httpx.get(f"{url}/model", timeout=10)
        if said.status_code == 401:
            return "API key" if said.headers.get("www-authenticate") == "Bearer" else "Ray's token"
        if "Statistics Report" in httpx.get(f"{url}/stats", timeout=10).text:
            return "nothing"
    except httpx.HTTPError:
        pass
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        for method in (OURS, *RAYS_METHODS):
            try:
                channel.unary_unary(method)(b"", timeout=10)
                return "nothing"
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                    return "API key" if method == OURS else "Ray's token"
    return "no known protocol"


def test_it_listens_where_the_page_says_and_asks_for_what_it_says(
    running: Running,
) -> None:
    page = (ROOT / "docs" / "serving" / "operations.md").read_text()
    table = page[page.index("What listens, and what it asks") :].split("\n\n")[1]
    rows = [[cell.strip() for cell in row.split("|")[2:5]] for row in table.splitlines()[2:]]
    told = {(where, port, asks) for each, port, asks in rows for where in each.split(", ")}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))  # sends nothing
        (mine, _), dashboard = sock.getsockname(), int(running.printed["dashboard"].split(":")[-1])
    http, metrics, statistics, rpc = running.ports

    def row(address: str, port: int) -> tuple[str, str, str]:
        is_ours = port in running.ports or FIRST <= port < END
        where = {"0.0.0.0": "all", "::": "all", mine: "the machine's"}.get(address, address)
        if is_ours and address == "127.0.0.1":
            where = "`serve.host`"
        which = (
            "`serve.port`, `serve.grpc_port`" if port in (http, rpc)
            else "9101, 8404" if port in (metrics, statistics)
            else f"{FIRST} to {END}" if is_ours
            else "8265, or the next that is free" if port == dashboard
            else AGENT if port == 52365
            else "any that is free"
        )  # fmt: skip
        return where, which, asks_for(address, port)

    found = {row(*each): each for each in running.listening()}
    assert {each: found[each] for each in found.keys() - told} == {}
    # Another Ray of this machine may have taken the agent's port.
    assert {each for each in told - found.keys() if each[1] != AGENT} == set()
