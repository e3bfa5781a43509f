from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ray_jobs.common.cluster import _without_banner, start_cost
from recsys.config import RayCluster

BANNER = b"[2026-11-29 21:47:00,123 I 1 1] logging.cc:303: Set ray log level from environment ...\n"


def test_of_what_ray_writes_while_it_starts_only_its_banner_is_dropped(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with _without_banner():
        os.write(2, BANNER + b"no space left\n")
    print("after", file=sys.stderr)
    assert capfd.readouterr().err == "no space left\nafter\n"


def test_only_a_cluster_of_our_own_costs_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert len(start_cost(RayCluster())) == 1
    assert start_cost(RayCluster(address="auto")) == []


@pytest.mark.ray
def test_a_job_starts_ray_without_a_word() -> None:
    code = (
        "from ray_jobs.common.cluster import connected; from recsys.config import RayCluster\n"
        "with connected(RayCluster()): import ray; print(ray.get(ray.put(7)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True
    )
    assert (done.stdout, done.stderr) == ("7\n", "")
