"""What `prepare` costs on generated logs of several lengths, beside the same histories by others.

    python -m benchmarks.prepare [--events N ...] [--beside duckdb polars ray] [--json FILE]

Each way runs in a process of its own. Memory is the largest sum of PSS over that process and all
below it, sampled twice a second; CPU seconds are their sum, which other work on the machine changes
less than wall time. `night` is a second run after 1 % new events came.
"""

from __future__ import annotations

import argparse
import datetime as dt
import multiprocessing as mp
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import shuffles
from benchmarks.command import add_json, run_report
from benchmarks.generated_log import CUTS, FIRST_DAY, write_generated, write_night
from recsys.config import Recipe, recipe_from_dict

NUM_ITEMS = 100_000
OTHERS = ("duckdb", "polars", "ray")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prepare",
        description="What `prepare` costs on generated logs, beside other engines.",
    )
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000],
                        metavar="N", help="lengths of the logs (1000000 10000000)")  # fmt: skip
    parser.add_argument("--beside", nargs="*", choices=OTHERS, default=OTHERS,
                        help="other engines (all)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="of each way (1)")
    parser.add_argument("--memory-gb", type=float, default=4.0, metavar="N",
                        help="data.memory_gb (4)")  # fmt: skip
    parser.add_argument("--duckdb-gb", type=float, default=12.0, metavar="N",
                        help="DuckDB's limit (12); its lists must fit it")  # fmt: skip
    parser.add_argument("--cpus", type=int, default=2, metavar="N", help="for each way (2)")
    parser.add_argument("--work", type=Path, default=Path("runs/prepare-benchmark"), metavar="DIR",
                        help="where logs and outputs lie (runs/prepare-benchmark)")  # fmt: skip
    add_json(parser)
    options = parser.parse_args(argv)
    return run_report(run, render, options, options.work)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all logs."""
    logs = []
    for num_events in options.events:
        work = options.work.absolute() / str(num_events)
        log, night = work / "log", work / "log" / "events" / "night.parquet"
        if not log.is_dir():
            write_generated(log, num_events, num_items=NUM_ITEMS)
        found: dict[str, list[dict[str, Any]]] = {}
        for number in range(options.rounds):
            night.unlink(missing_ok=True)
            for name, way in _ways(options, work, num_events).items():
                cost = measured(way)
                found.setdefault(name, []).append(cost)
                say(f"{num_events:,} events, round {number + 1}, {name}: {cost}")
        logs.append({"events": num_events, "ways": found})
    return {"items": NUM_ITEMS, "cpus": options.cpus, "memory_gb": options.memory_gb, "logs": logs}


def _ways(
    options: argparse.Namespace, work: Path, num_events: int
) -> dict[str, Callable[[], object]]:
    """Name -> what is measured, in this order."""
    log, target = work / "log", work / "out"
    recipe = recipe_from_dict(
        {
            "name": "prepare-benchmark",
            "run_dir": str(work / "run"),
            "data": {
                "source": str(log),
                "cuts": {name: FIRST_DAY + dt.timedelta(days=day) for name, day in CUTS.items()},
                "memory_gb": options.memory_gb,
            },
            "ray": {"address": "local", "num_cpus": options.cpus},
        }
    )  # fmt: skip
    others: dict[str, Callable[[], object]] = {
        "duckdb": partial(shuffles.by_duckdb, log, target, memory_gb=options.duckdb_gb,
                          threads=options.cpus),
        "polars": partial(shuffles.by_polars, log, target),
        "ray": partial(shuffles.by_ray, log, target, num_cpus=options.cpus),
    }  # fmt: skip
    return {
        "full": partial(_prepare, recipe, fresh=True),
        **{name: partial(_afresh, others[name], target) for name in options.beside},
        "night": partial(_night, recipe, log, num_events),
    }


def _afresh(way: Callable[[], object], target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    way()


def _night(recipe: Recipe, log: Path, num_events: int) -> dict[str, float]:
    write_night(log, num_events // 100, of=num_events, num_items=NUM_ITEMS)
    return _prepare(recipe, fresh=False)


def _prepare(recipe: Recipe, *, fresh: bool) -> dict[str, float]:
    """Run `prepare`; seconds of each step that tasks do, and of all."""
    from ray_jobs.common.tasks import tasks_on
    from recsys.preparation.preparing import Rows, RunTasks, Task, prepare

    if fresh:
        shutil.rmtree(recipe.root, ignore_errors=True)
    steps: dict[str, float] = {}

    @contextmanager
    def timed() -> Iterator[RunTasks]:
        began = time.monotonic()
        with tasks_on(recipe) as run_tasks:
            steps["start Ray"] = time.monotonic() - began

            def each(rows: Rows, task: Task) -> Rows:
                began = time.monotonic()
                done = run_tasks(rows, task)
                steps[type(task).__name__] = time.monotonic() - began
                return done

            yield each

    began = time.monotonic()
    prepare(recipe, timed())
    steps["all"] = time.monotonic() - began
    return steps


def measured(way: Callable[[], object]) -> dict[str, Any]:
    """Wall and CPU seconds, largest PSS and steps of a way, in a process of its own.

    A way that fails, for want of memory say, has no seconds.
    """
    import psutil

    receive, send = mp.get_context("spawn").Pipe(duplex=False)
    process = mp.get_context("spawn").Process(target=_child, args=(way, send))
    process.start()
    peak, cpu = 0, dict[int, float]()
    while process.is_alive():
        total = 0
        with suppress(psutil.Error):
            for each in [(own := psutil.Process(process.pid)), *own.children(recursive=True)]:
                with suppress(psutil.Error):
                    total += each.memory_full_info().pss
                    times = each.cpu_times()
                    cpu[each.pid] = times.user + times.system
        peak = max(peak, total)
        process.join(0.5)
    seconds, steps = receive.recv() if receive.poll() else (None, {})
    return {
        "seconds": seconds, "cpu_s": sum(cpu.values()), "peak_gb": peak / 2**30, "steps": steps,
    }  # fmt: skip


def _child(way: Callable[[], object], send: Any) -> None:
    began = time.monotonic()
    steps = way()
    send.send((time.monotonic() - began, steps if isinstance(steps, dict) else {}))


def say(line: str) -> None:
    """Show progress."""
    print(line, file=sys.stderr, flush=True)


def render(report: dict[str, Any]) -> list[str]:
    """The report as text; medians over rounds, and the largest memory."""
    lines = [
        f"generated logs, {report['items']:,} items, {report['cpus']} CPUs, "
        f"data.memory_gb {report['memory_gb']:g}",
        f"{'events':>12}  {'way':<8}{'seconds':>9}{'CPU s':>9}{'events/s':>11}{'PSS, GiB':>10}",
    ]
    for log in report["logs"]:
        for name, rounds in log["ways"].items():
            peak, cpu = max(each["peak_gb"] for each in rounds), _median(rounds, "cpu_s")
            if any(each["seconds"] is None for each in rounds):
                lines.append(
                    f"{log['events']:>12,}  {name:<8}{'failed':>9}{cpu:>9.1f}{peak:>21.2f}"
                )
                continue
            seconds = _median(rounds, "seconds")
            lines.append(
                f"{log['events']:>12,}  {name:<8}{seconds:>9.1f}{cpu:>9.1f}"
                f"{log['events'] / seconds:>11,.0f}{peak:>10.2f}"
            )
    for log in report["logs"]:
        for name in ("full", "night"):
            steps = log["ways"][name][-1]["steps"]
            told = ", ".join(f"{step} {seconds:.1f}" for step, seconds in steps.items())
            lines.append(f"{log['events']:,} events, {name}, seconds: {told}")
    return lines


def _median(rounds: Sequence[dict[str, Any]], name: str) -> float:
    values = sorted(float(each[name]) for each in rounds)
    return values[len(values) // 2]


if __name__ == "__main__":
    sys.exit(main())
