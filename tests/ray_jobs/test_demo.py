"""The demo as a user starts it, on a small log: from Parquet to answers over HTTP, and an end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_log, tiny_recipe_file

from benchmarks.ports import free_ports
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.registry import Registry

ROOT = Path(__file__).parents[2]
HAPROXY_PORTS = ("RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT")


@pytest.mark.ray
@pytest.mark.serve
def test_the_demo_walks_the_whole_way(tmp_path: Path) -> None:
    tiny_log(tmp_path / "log")
    port, *others = free_ports(3)
    recipe = tiny_recipe_file(
        tmp_path, train={"epochs": 1}, tune={"num_trials": 1}, serve={"port": port}
    )
    environment = {name: value for name, value in os.environ.items() if name[:4] != "RAY_"}
    environment |= dict(zip(HAPROXY_PORTS, map(str, others), strict=True))
    done = subprocess.run(
        [sys.executable, "-m", "ray_jobs.demo", "--config", str(recipe)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    version = Bundle.open(tmp_path / "run" / "bundle").version
    assert Registry(tmp_path / "registry").champion() == version
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert {row["model"] for row in report["rows"]} > {"raycommend", "popularity", "item_knn"}
    expected = [
        *(f"[{number}/5]" for number in range(1, 6)),
        f"the service answers at http://127.0.0.1:{port} with {version}",
        "for a-new-visitor (popularity):",
        "an item never seen, 'organic oat milk 64 oz', ranked",
        "for a-new-visitor right after a first purchase (personal):",
        "slice: all",
        f"page       {tmp_path / 'run' / 'report.html'}",
        f"report     {tmp_path / 'run' / 'report.json'}",
        "next: make serve",
        "demo: done in",
    ]
    at = 0
    for part in expected:
        found = done.stdout.find(part, at)
        assert found >= 0, f"{part!r} is missing, or out of order, in:\n{done.stdout}"
        at = found
    # Ray's own complaints would frighten whoever sees Ray for the first time.
    assert "Traceback" not in done.stdout + done.stderr
    assert "ERROR" not in done.stdout + done.stderr
    for number in (port, *others):
        socket.create_server(("127.0.0.1", number)).close()
