"""How the number of replicas follows the load: 1 connection, 64, and 1 again.

    python -m benchmarks.serving.autoscaling [--svg docs/autoscaling.svg] [--json FILE]

Starts the service on a random bundle, with the defaults of `serve.autoscaling` but for the bounds.
Each connection asks `/recommend` for 100 of 10,000 items without a pause. A rise is over when all
replicas answer, a fall when one is left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.command import add_json, run_command
from benchmarks.picture import Line, document, panel
from benchmarks.serving.clients import Answer, Clients, percentile_ms
from benchmarks.serving.own_service import machine, num_answering, num_started, serving
from benchmarks.serving.peers import Server

LOW, HIGH = 1, 64


@dataclass(frozen=True)
class Second:
    """One sample.

    Attributes:
        at: seconds since the begin.
        connections: that asked.
        replicas: that requests were sent to; -1: not known.
        started: processes of replicas, those on their way up or down as well.
        rate: answers in this second.
        p50_ms, p99_ms: of those; NaN of none.
        failed: answers other than 200, and broken connections.
    """

    at: float
    connections: int
    replicas: int
    started: int
    rate: int
    p50_ms: float
    p99_ms: float
    failed: int


@dataclass(frozen=True)
class Delays:
    """Seconds until the service had followed; None: it had not by the end.

    Attributes:
        decided: from the rise to the start of a further process: Serve has noticed.
        first: from the rise to the first further replica that answers.
        full: from the rise to the most of them.
        gone: from the fall to the last further one gone.
    """

    decided: float | None
    first: float | None
    full: float | None
    gone: float | None


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving.autoscaling", description="How replicas follow the load."
    )
    parser.add_argument("--replicas", type=int, default=3, help="at most (default: 3)")
    parser.add_argument("--low-s", type=int, default=10, help="before the rise (default: 10)")
    parser.add_argument("--high-s", type=int, default=60, help="from rise to fall (default: 60)")
    parser.add_argument("--after-s", type=int, default=100, help="after the fall (default: 100)")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw it")
    add_json(parser)
    return run_command(_run, parser.parse_args(argv))


def _run(options: argparse.Namespace) -> int:
    levels = [LOW] * options.low_s + [HIGH] * options.high_s + [LOW] * options.after_s
    print(machine(), flush=True)
    settings = {"autoscaling": {"min_replicas": 1, "max_replicas": options.replicas}}
    with serving(settings) as (server, bodies):
        seconds, answers = asyncio.run(_follow(server, bodies, levels))
    found = delays(seconds, options.replicas)
    print("\n".join(render(found, answers, options.replicas)))
    if options.svg:
        options.svg.write_text(picture(seconds))
    if options.json:
        data = {"delays": vars(found), "seconds": [vars(second) for second in seconds]}
        options.json.write_text(json.dumps(data, indent=2) + "\n")
    return int(any(answer.status != 200 for answer in answers))


async def _follow(
    server: Server, bodies: list[str], levels: Sequence[int]
) -> tuple[list[Second], list[Answer]]:
    clients = Clients(server.url, bodies)
    began = time.monotonic()
    load = asyncio.create_task(clients.follow(levels, 1.0))
    seconds: list[Second] = []
    num_seen = 0
    while not load.done():
        await asyncio.sleep(max(began + len(seconds) + 1 - time.monotonic(), 0))
        connections = clients.connections
        replicas = await asyncio.to_thread(num_answering, server)
        started = await asyncio.to_thread(num_started, server)
        new, num_seen = clients.answers[num_seen:], len(clients.answers)
        second = Second(
            time.monotonic() - began, connections, replicas, started, len(new),
            percentile_ms(new, 50), percentile_ms(new, 99),
            sum(answer.status != 200 for answer in new),
        )  # fmt: skip
        seconds.append(second)
        print(f"{second.at:5.0f} s, {connections:2d} connections, {replicas} replicas: "
              f"{second.rate}/s, p50 {second.p50_ms:.0f} ms, p99 {second.p99_ms:.0f} ms, "
              f"{second.failed} failed", flush=True)  # fmt: skip
    await load
    return seconds, clients.answers


def delays(seconds: Sequence[Second], most: int) -> Delays:
    """How long the service took to follow."""
    rise = next(n for n, second in enumerate(seconds) if second.connections == HIGH)
    fall = max(n for n, second in enumerate(seconds) if second.connections == HIGH) + 1

    def until(begin: int, is_so: Callable[[Second], bool]) -> float | None:
        """From the sample before `begin`, when the level changed."""
        found = next((each.at for each in seconds[begin:] if is_so(each)), None)
        return None if found is None else found - seconds[begin - 1].at

    return Delays(
        until(rise, lambda each: each.started > 1),
        until(rise, lambda each: each.replicas > 1),
        until(rise, lambda each: each.replicas == most),
        until(fall, lambda each: each.replicas == 1),
    )


def render(found: Delays, answers: Sequence[Answer], most: int) -> list[str]:
    """What is printed at the end."""

    def told(seconds: float | None) -> str:
        return "not seen" if seconds is None else f"{seconds:.0f} s"

    failed = sum(answer.status != 200 for answer in answers)
    return [
        f"from the rise to the start of a further replica: {told(found.decided)}",
        f"from the rise to the first that answers: {told(found.first)}",
        f"from the rise to {most} that answer: {told(found.full)}",
        f"from the fall to 1 replica: {told(found.gone)}",
        f"{failed} of {len(answers)} requests failed",
    ]


def picture(seconds: Sequence[Second]) -> str:
    """An SVG document: replicas, requests a second, latencies."""

    def line(name: str, values: Sequence[float]) -> Line:
        pairs = zip((each.at for each in seconds), values, strict=True)
        return Line(name, [(at, value) for at, value in pairs if value == value and value >= 0])

    across = f"seconds; {HIGH} connections in the middle, {LOW} before and after"
    middle = [(each.at, 1.0 if each.connections == HIGH else 0.0) for each in seconds]
    replicas = line("replicas that answer", [float(each.replicas) for each in seconds])
    panels = [
        [replicas, Line(f"{HIGH} connections", middle)],
        [line("requests/s", [float(each.rate) for each in seconds])],
        [
            line("p50, ms", [each.p50_ms for each in seconds]),
            line("p99, ms", [each.p99_ms for each in seconds]),
        ],
    ]
    ups = ("replicas", "requests/s", "milliseconds")
    return document(
        [
            panel(lines, across=across, up=up, from_zero=True, dots=False)
            for lines, up in zip(panels, ups, strict=True)
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
