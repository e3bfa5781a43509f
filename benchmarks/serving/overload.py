"""What the service does with more than it can take: refuse at once, and go on with the rest.

    python -m benchmarks.serving.overload [--json FILE]

Starts the service with one replica and the default bounds (`serve.max_ongoing_requests`,
`serve.max_queued_requests`). The peak is what 16 connections get, each asking without a pause. Then
clients ask three times as often as that, whether they are answered or not, by more connections than
the bounds admit. Goodput is what is answered 200.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.command import add_json, run_command
from benchmarks.serving.clients import Answer, Clients, percentile_ms
from benchmarks.serving.own_service import machine, serving

PEAK_CONNECTIONS, TIMES = 16, 3
#: Answers of the first seconds are left out: the queue fills.
SETTLE_S = 3.0


@dataclass(frozen=True)
class Overload:
    """What one load met.

    Attributes:
        name: of the load.
        connections: how many asked.
        offered: requests a second.
        goodput: of these, answered 200.
        p50_ms, p99_ms: of those.
        refused: share that was answered 503.
        refused_p50_ms, refused_p99_ms: how long that took; NaN of none.
        failed: other answers, broken connections, and refusals without `Retry-After`.
    """

    name: str
    connections: int
    offered: float
    goodput: float
    p50_ms: float
    p99_ms: float
    refused: float
    refused_p50_ms: float
    refused_p99_ms: float
    failed: int


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.overload",
        description="Three times what the service can take.",
    )
    parser.add_argument("--seconds", type=float, default=12, help="of each load (default: 12)")
    parser.add_argument("--rounds", type=int, default=2, help="default: 2")
    parser.add_argument("--connections", type=int, default=800,
                        help="of the overload (default: 800)")  # fmt: skip
    add_json(parser)
    return run_command(_run, parser.parse_args(argv))


def _run(options: argparse.Namespace) -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a connection is an open file
    print(machine(), flush=True)
    found: list[Overload] = []
    with serving({"autoscaling": {"min_replicas": 1, "max_replicas": 1}}) as (server, bodies):
        for _ in range(options.rounds):
            clients = Clients(server.url, bodies, connections=PEAK_CONNECTIONS)
            peak = _measure("peak", clients, options.seconds)
            pause = options.connections / (TIMES * peak.goodput)
            crowd = Clients(server.url, bodies, pause, options.connections)
            found += [peak, _measure(f"{TIMES} x peak", crowd, options.seconds)]
            print("\n".join(render(found[-2:])), flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")
    return int(any(each.failed for each in found))


def _measure(name: str, clients: Clients, seconds: float) -> Overload:
    connections = clients.connections
    asyncio.run(clients.run(SETTLE_S + seconds))
    return summary(name, connections, clients.answers, seconds)


def summary(name: str, connections: int, answers: Sequence[Answer], seconds: float) -> Overload:
    """Figures of the answers that came in `seconds` after the first `SETTLE_S`."""
    begin = min(answer.at - answer.seconds for answer in answers) + SETTLE_S
    of_these = [answer for answer in answers if begin <= answer.at < begin + seconds]
    good = [answer for answer in of_these if answer.status == 200]
    refused = [answer for answer in of_these if answer.status == 503 and answer.retry_after]
    return Overload(
        name, connections, len(of_these) / seconds, len(good) / seconds,
        percentile_ms(good, 50), percentile_ms(good, 99), len(refused) / len(of_these),
        percentile_ms(refused, 50), percentile_ms(refused, 99),
        len(of_these) - len(good) - len(refused),
    )  # fmt: skip


def render(pair: Sequence[Overload]) -> list[str]:
    """A Markdown table of a peak and what followed it."""
    lines = [
        "| load | connections | answered/s | of these 200 | share of the peak | p50, p99, ms "
        "| 503 | p50, p99, ms | else |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in pair:
        lines.append(
            f"| {each.name} | {each.connections} | {each.offered:.0f} | {each.goodput:.0f} "
            f"| {each.goodput / pair[0].goodput:.2f} | {each.p50_ms:.0f}, {each.p99_ms:.0f} "
            f"| {each.refused:.0%} | {each.refused_p50_ms:.0f}, {each.refused_p99_ms:.0f} "
            f"| {each.failed} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
