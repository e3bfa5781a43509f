"""Our service on a random bundle, for benchmarks that look at nothing else."""

from __future__ import annotations

import csv
import io
import os
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.serving.peers import OURS, Server, bodies_of, start_server, wait_for
from benchmarks.serving.random_bundle import make_bundle, make_recipe

NUM_ITEMS = 10_000
ROUTE = "recommend"


@contextmanager
def serving(serve: dict[str, Any]) -> Iterator[tuple[Server, list[str]]]:
    """A service with these settings, and bodies to ask it for; ended with the block."""
    with tempfile.TemporaryDirectory(prefix="serving-") as name:
        folder = Path(name)
        recipe = make_recipe(folder / "run", serve=serve)
        bundle = make_bundle(folder / "bundle", recipe, NUM_ITEMS).folder
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.resolved()))
        bodies = bodies_of(ROUTE, NUM_ITEMS)
        server = start_server(OURS, folder, bundle, ROUTE)
        try:
            wait_for(server, bodies[0], folder)
            yield server, bodies
        finally:
            server.stop()


def num_answering(server: Server) -> int:
    """Replicas that HAProxy sends requests to; -1 if it does not say."""
    with suppress(OSError):
        url = f"http://127.0.0.1:{server.stats}/stats;csv"
        with urllib.request.urlopen(url, timeout=2) as answer:
            rows = csv.DictReader(io.StringIO(answer.read().decode().lstrip("# ")))
            # The last server of a backend is Serve's own proxy, which steps in where no replica is.
            return sum(
                row["svname"] not in ("FRONTEND", "BACKEND")
                and row["status"].startswith("UP")
                and row["act"] == "1"
                for row in rows
            )
    return -1


def num_started(server: Server) -> int:
    """Processes of replicas, those that do not answer yet as well."""
    found = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == server.process.pid:
                found += process.cmdline()[:1] == ["ray::ServeReplica:raycommend:Ranking"]
    return found


def machine() -> str:
    """What the figures were taken on, and what else it had to do before."""
    load = psutil.getloadavg()[0]
    return f"{psutil.cpu_count()} CPU cores, load average before: {load:.1f}"
