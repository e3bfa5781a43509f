"""The serving benchmark without its servers: the work they do, and what is read of `wrk`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.serving.peer_servers import Scoring
from benchmarks.serving.peers import Load, bodies_of, read_wrk
from benchmarks.serving.random_bundle import make_bundle, make_recipe

REPORT = """Running 4s test @ http://127.0.0.1:1/rank
  Latency Distribution
     50%    9.96ms
     75%   15.00ms
     99%    1.28s
  329 requests in 4.07s, 3.10MB read
  Socket errors: connect 0, read 2, write 0, timeout 1
  Non-2xx or 3xx responses: 4
Requests/sec:     80.84
"""


def test_the_peers_answer_what_the_bodies_ask(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", make_recipe(tmp_path / "run"), 600)
    asked = json.loads(bodies_of("rank", 600)[0])
    items = json.loads(Scoring(bundle.folder).answer(asked))["items"]
    scores = [item["score"] for item in items]
    assert len(items) == 100
    assert scores == sorted(scores, reverse=True)
    assert {item["item_id"] for item in items} <= set(asked["candidates"])


def test_what_wrk_reports() -> None:
    assert read_wrk(REPORT) == Load(80.84, pytest.approx(9.96), pytest.approx(1280), 7)
