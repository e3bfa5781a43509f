"""How soon an event changes the next answer.

    python -m benchmarks.serving.freshness [--beside 16] [--json FILE]

A user of whom nothing is known asks for ten items without what he owns, buys the first of them, and
asks again until it is gone from his list: the time counts from sending the purchase to the end of
the first answer without it. Each round is a new user; two replicas share one store, so the answer
mostly comes from another process than the one that took the event. Beside it other clients ask for
lists without a pause.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.command import add_json, run_command
from benchmarks.serving.clients import Clients
from benchmarks.serving.own_service import machine, serving

LONGEST_S = 30.0


@dataclass(frozen=True)
class Freshness:
    """What one load met.

    Attributes:
        beside: connections that ask without a pause.
        rounds: purchases.
        posted_p50_ms, posted_p99_ms: until `POST /events` was answered.
        seen_p50_ms, seen_p99_ms: until an answer knew of it.
        at_once: share that the first answer after the event knew of.
    """

    beside: int
    rounds: int
    posted_p50_ms: float
    posted_p99_ms: float
    seen_p50_ms: float
    seen_p99_ms: float
    at_once: float


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.freshness",
        description="From an event to an answer that knows.",
    )
    parser.add_argument("--rounds", type=int, default=500, help="purchases (default: 500)")
    parser.add_argument("--beside", default="0,4", help="connections beside it (default: 0,4)")
    parser.add_argument("--backend", choices=["sqlite", "redis"], default="sqlite",
                        help="of the users' store; redis at --url (default: sqlite)")  # fmt: skip
    parser.add_argument("--url", help="of the Redis or Valkey server")
    add_json(parser)
    options = parser.parse_args(argv)
    if (options.backend == "redis") != (options.url is not None):
        parser.error("--backend redis and --url go together")
    return run_command(_run, options)


def _run(options: argparse.Namespace) -> None:
    print(machine(), flush=True)
    state = {"backend": options.backend} | ({"url": options.url} if options.url else {})
    settings = {"autoscaling": {"min_replicas": 2, "max_replicas": 2}, "state": state}
    found: list[Freshness] = []
    with serving(settings) as (server, bodies):
        for beside in map(int, options.beside.split(",")):
            with _asking(Clients(server.url, bodies, connections=beside)):
                found.append(measure(server.url, beside, options.rounds))
    print("\n".join(render(found)))
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")


def measure(url: str, beside: int, rounds: int) -> Freshness:
    """Of so many purchases; `url` is that of `/recommend`."""
    posted, seen, at_once = [], [], 0
    place = urlsplit(url)
    connection = HTTPConnection(str(place.hostname), place.port, timeout=LONGEST_S)
    for number in range(rounds):
        ask = {"user_id": f"fresh-{beside}-{number}", "k": 10, "exclude_owned": True}
        item = _post(connection, "/recommend", ask)["items"][0]["item_id"]
        event = {"user_id": ask["user_id"], "item_id": item, "event_type": "purchase"}
        began = time.perf_counter()
        assert _post(connection, "/events", event)["stored"] == 1
        posted.append(time.perf_counter() - began)
        asked, is_shown = 0, True
        while is_shown:
            items = _post(connection, "/recommend", ask)["items"]
            asked, is_shown = asked + 1, any(each["item_id"] == item for each in items)
            assert time.perf_counter() - began < LONGEST_S
        seen.append(time.perf_counter() - began)
        at_once += asked == 1
    connection.close()
    return Freshness(beside, rounds, *_ms(posted), *_ms(seen), at_once / rounds)


def render(found: Sequence[Freshness]) -> list[str]:
    """A Markdown table."""
    return [
        "| connections beside | events | stored after p50, p99, ms | seen after p50, p99, ms "
        "| by the first answer |",
        "|---|---|---|---|---|",
        *(
            f"| {each.beside} | {each.rounds} | {each.posted_p50_ms:.1f}, {each.posted_p99_ms:.1f} "
            f"| {each.seen_p50_ms:.1f}, {each.seen_p99_ms:.1f} | {each.at_once:.1%} |"
            for each in found
        ),
    ]


@contextmanager
def _asking(clients: Clients) -> Iterator[None]:
    """These clients ask while the block runs."""
    if not clients.connections:
        yield
        return
    done = threading.Event()

    async def run() -> None:
        while not done.is_set():
            connections = clients.connections
            await clients.run(1.0)
            clients.connections = connections
            clients.answers.clear()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _ms(seconds: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(seconds, [50, 99])
    return 1000 * float(low), 1000 * float(high)


def _post(connection: HTTPConnection, path: str, body: Any) -> Any:
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path} answers {answer.status}: {text.decode()}")
    return json.loads(text)


if __name__ == "__main__":
    sys.exit(main())
