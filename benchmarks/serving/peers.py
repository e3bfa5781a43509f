"""The service beside what people would use instead, with the same client, model and work.

    python -m benchmarks.serving [--items 10000] [--ways ours,fastapi,litserve,bentoml]

The work is `POST /rank`: a session of 20 events, 500 candidates, the best 100 asked for; or, with
`--route recommend`, the best 100 of the whole catalogue (ours and FastAPI alone). All servers are
up at once and are loaded in turn by `wrk`, which must be on PATH, round after round; the table has
medians over the rounds, and ratios within each round. LitServe and BentoML are in no extra: install
them where you like and name that Python by `--peers`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import yaml

from benchmarks.command import add_json, run_command
from benchmarks.ports import free_ports
from benchmarks.serving.random_bundle import item_id, make_bundle, make_recipe

OURS: Final = "ours"
WAYS: Final = (OURS, "fastapi", "litserve", "bentoml")
NUM_BODIES, NUM_EVENTS, NUM_CANDIDATES, K = 200, 20, 500, 100
START_S: Final = 180
_UNITS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass
class Server:
    """A server that runs, and what was measured of it.

    Attributes:
        name: which way.
        process: the leader of its processes' group.
        url: of the route.
        start_s: from its start to its first answer.
        megabytes: of all its processes after the load; shared pages count in part (PSS).
        measured: by connections, one entry a round.
        stats: of our service, the port of HAProxy's statistics.
    """

    name: str
    process: subprocess.Popen[bytes]
    url: str
    stats: int = 0
    start_s: float = 0.0
    megabytes: float = 0.0
    measured: dict[int, list[Load]] = field(default_factory=dict)

    def stop(self) -> None:
        """End its processes."""
        family = _family(self.process.pid)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(60)
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()


@dataclass(frozen=True)
class Load:
    """What `wrk` saw: requests a second, milliseconds, answers that were none."""

    rate: float
    p50_ms: float
    p99_ms: float
    failed: int


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description="Requests a second and latencies, beside other servers.",
    )
    parser.add_argument("--items", type=int, default=10_000, help="items (default: 10000)")
    parser.add_argument("--route", choices=["rank", "recommend"], default="rank")
    parser.add_argument("--ways", default=",".join(WAYS), help=f"of {', '.join(WAYS)}")
    parser.add_argument("--connections", default="1,16,64", help="default: 1,16,64")
    parser.add_argument("--seconds", type=int, default=6, help="of each load (default: 6)")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--replicas", type=int, default=1,
                        help="processes that rank, of our service (default: 1)")  # fmt: skip
    parser.add_argument("--workers", type=int,
                        help="the same, of the others (default: as many)")  # fmt: skip
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON",
                        help="the Python that has litserve and bentoml")  # fmt: skip
    add_json(parser)
    options = parser.parse_args(argv)
    if shutil.which("wrk") is None:
        print("benchmarks.serving: wrk is not on PATH: install it", file=sys.stderr)
        return 2
    ways = options.ways.split(",")
    if unknown := set(ways) - set(WAYS):
        parser.error(f"--ways: no such server: {', '.join(sorted(unknown))}")
    if options.route == "recommend" and set(ways) - {OURS}:
        parser.error("--route recommend: --ways ours alone")
    return run_command(_run, options)


def _run(options: argparse.Namespace) -> None:
    ways = options.ways.split(",")
    workers = options.workers or options.replicas
    levels = [int(part) for part in options.connections.split(",")]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serving-")))
        print(f"making a bundle of {options.items:,} items", flush=True)
        recipe = make_recipe(folder / "run", serve=_serve(options.replicas))
        made = make_bundle(folder / "bundle", recipe, options.items)
        print("\n".join(made.index.describe() if made.index else ["no index: all are read"]))
        bundle = made.folder
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.resolved()))
        bodies = bodies_of(options.route, options.items)
        script = _script(folder, bodies)
        servers = []
        for name in ways:
            server = start_server(name, folder, bundle, options.route, options.peers, workers)
            stack.callback(server.stop)
            wait_for(server, bodies[0], folder)
            servers.append(server)
        for number in range(options.rounds):
            for connections in levels:
                for server in servers:
                    load = _load(server.url, script, connections, options.seconds)
                    server.measured.setdefault(connections, []).append(load)
                    print(f"round {number + 1}, {connections:2d} connections, {server.name}: "
                          f"{load.rate:.0f}/s, p50 {load.p50_ms:.1f} ms, p99 {load.p99_ms:.1f} ms, "
                          f"{load.failed} failed", flush=True)  # fmt: skip
        for server in servers:
            server.megabytes = _megabytes(server.process.pid)
    print("\n" + "\n".join(render(servers, levels)))
    if options.json:
        rows = [
            {"way": s.name, "start_s": s.start_s, "megabytes": s.megabytes, "connections": n,
             "loads": [vars(load) for load in loads]}
            for s in servers for n, loads in s.measured.items()
        ]  # fmt: skip
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def render(servers: list[Server], levels: list[int]) -> list[str]:
    """A Markdown table: medians over the rounds; ratios are medians of each round's ratio."""
    lines = [
        "| server | connections | requests/s | p50, ms | p99, ms | ours / it | failed "
        "| start, s | MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    ours = next((server for server in servers if server.name == OURS), None)
    for server in servers:
        for connections in levels:
            loads = server.measured[connections]
            rates = [load.rate for load in loads]
            ratio = ""
            if ours is not None and server is not ours:
                ratios = [
                    mine.rate / its.rate
                    for mine, its in zip(ours.measured[connections], loads, strict=True)
                ]
                ratio = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
            p50, p99 = (
                statistics.median(getattr(load, name) for load in loads)
                for name in ("p50_ms", "p99_ms")
            )
            lines.append(
                f"| {server.name} | {connections} | {statistics.median(rates):.0f} "
                f"[{min(rates):.0f}, {max(rates):.0f}] | {p50:.1f} | {p99:.1f} | {ratio} "
                f"| {sum(load.failed for load in loads)} | {server.start_s:.0f} "
                f"| {server.megabytes:.0f} |"
            )
    return lines


def _serve(replicas: int) -> dict[str, Any]:
    return {
        "autoscaling": {"min_replicas": replicas, "max_replicas": replicas},
        "max_ongoing_requests": 64,
        "state": {"backend": "sqlite"},
    }


def bodies_of(route: str, num_items: int) -> list[str]:
    """What is asked for, as JSON; the same in every call."""
    rng = random.Random(0)
    bodies = []
    for _ in range(NUM_BODIES):
        history = [
            {"item_id": item_id(rng.randrange(num_items)), "event_type": kind}
            for kind in rng.choices(["view", "click", "purchase"], [6, 3, 1], k=NUM_EVENTS)
        ]
        body: dict[str, Any] = {"history": history, "k": K}
        if route == "rank":
            rows = rng.sample(range(num_items), min(NUM_CANDIDATES, num_items))
            body["candidates"] = [item_id(row) for row in rows]
        bodies.append(json.dumps(body))
    return bodies


def _script(folder: Path, bodies: list[str]) -> Path:
    """A script that makes `wrk` send the bodies one after the other."""
    path, lines = folder / "bodies.lua", folder / "bodies"
    lines.write_text("\n".join(bodies))
    path.write_text(
        f"""local bodies = {{}}
for line in io.lines("{lines}") do bodies[#bodies + 1] = line end
local n = 0
local headers = {{ ["Content-Type"] = "application/json" }}
request = function()
  n = n % #bodies + 1
  return wrk.format("POST", nil, headers, bodies[n])
end
"""
    )
    return path


def start_server(
    name: str,
    folder: Path,
    bundle: Path,
    route: str,
    peers: str = sys.executable,
    workers: int = 1,
) -> Server:
    """Start a server.

    Args:
        name: one of `WAYS`.
        folder: holds the recipe of ours, and takes the logs.
        bundle: is served.
        route: that is asked.
        peers: the Python that has LitServe and BentoML.
        workers: processes that rank, of others than ours.
    """
    port, metrics, stats = free_ports(3)
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1"}
    if name == OURS:
        command = [
            sys.executable, "-m", "serve", "--config", str(folder / "recipe.yaml"),
            "--bundle", str(bundle), "--set", f"serve.port={port}",
        ]  # fmt: skip
        environment |= {
            "RAYCOMMEND_PSEUDONYM_KEY": "a key that everybody knows",
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        }
    else:
        python = peers if name in ("litserve", "bentoml") else sys.executable
        command = [
            python, "-m", "benchmarks.serving.peer_servers", name, str(bundle), "--port", str(port),
            "--workers", str(workers),
        ]  # fmt: skip
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    return Server(name, process, f"http://127.0.0.1:{port}/{route}", stats)


def wait_for(server: Server, body: str, folder: Path) -> None:
    """Until it answers."""
    began = time.monotonic()
    request = urllib.request.Request(
        server.url, body.encode(), {"Content-Type": "application/json"}
    )
    while True:
        with suppress(OSError), urllib.request.urlopen(request, timeout=30) as answer:
            items = json.load(answer)["items"]
            break
        if server.process.poll() is not None or time.monotonic() - began > START_S:
            raise SystemExit(
                f"{server.name} does not answer:\n{(folder / f'{server.name}.log').read_text()}"
            )
        time.sleep(0.1)
    assert len(items) == K, len(items)
    server.start_s = time.monotonic() - began
    print(f"{server.name}: up after {server.start_s:.1f} s", flush=True)


def _load(url: str, script: Path, connections: int, seconds: int) -> Load:
    command = [
        "wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s",
        "--timeout", "30s", "--latency", "--script", str(script), url,
    ]  # fmt: skip
    return read_wrk(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def read_wrk(text: str) -> Load:
    """Figures out of `wrk`'s report."""

    def milliseconds(share: str) -> float:
        found = re.search(rf"^\s*{share}%\s+([\d.]+)([a-z]+)", text, re.MULTILINE)
        assert found, text
        return float(found[1]) * _UNITS[found[2]]

    rate = re.search(r"Requests/sec:\s*([\d.]+)", text)
    assert rate, text
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    socket_errors = re.search(r"Socket errors: (.*)", text)
    failed = int(bad[1]) if bad else 0
    failed += sum(map(int, re.findall(r"\d+", socket_errors[1]))) if socket_errors else 0
    return Load(float(rate[1]), milliseconds("50"), milliseconds("99"), failed)


def _family(pid: int) -> list[psutil.Process]:
    """A process that leads a session, and all that descend from it or share the session."""
    found = set()
    with suppress(psutil.NoSuchProcess):
        found |= set(psutil.Process(pid).children(recursive=True))
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == pid:
                found.add(process)
    return list(found)


def _megabytes(pid: int) -> float:
    total = 0
    for process in _family(pid):
        with suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total / 1e6
