"""Two arms of a running service share its users."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bundles import version_in
from running_service import Running

from recsys.data.feedback import Feedback, finished
from recsys.schema import Col

pytestmark = [pytest.mark.serve, pytest.mark.ray]


def test_two_arms_share_the_users(running: Running, bundle: Path, other_bundle: Path) -> None:
    arms = [
        {"name": "control"},
        {
            "name": "drawn", "bundle": str(other_bundle),
            "exploration": "plackett_luce", "temperature": 1.0,
        },
    ]  # fmt: skip
    before = running.replicas()
    running.configure(bundle, f"serve.arms={json.dumps(arms)}")
    running.wait_for_arms("control", "drawn")
    assert running.replicas() == before, "arms restart nobody"
    running.wait_for_replicas(2, 60)  # Serve takes one out while it tells it what is new
    urls = [f"http://{address}" for address in running.addresses()]
    versions = {"control": version_in(bundle), "drawn": version_in(other_bundle)}
    answers: dict[str, dict[str, Any]] = {}
    for number in range(20):
        body = {"user_id": f"sticky-{number}", "k": 5}
        told = set()
        for url in (*urls, running.url):  # each replica, and whichever the proxy takes
            answer = httpx.post(f"{url}/recommend", json=body, headers=running.headers).json()
            assert answer["model_version"] == versions[answer["arm"]] and not answer["fallback"]
            told.add(answer["arm"])
            answers[answer["request_id"]] = answer
        assert len(told) == 1, "on every replica the same"
    by_arm = Counter(answer["arm"] for answer in answers.values())
    assert min(by_arm["control"], by_arm["drawn"]) >= 6

    logged: dict[str, list[dict[str, Any]]] = {}
    deadline = time.monotonic() + 30
    while not logged.keys() >= answers.keys():
        assert time.monotonic() < deadline
        time.sleep(0.5)
        files = finished(Feedback.of(running.root).impressions)
        logged = {}
        for row in pa.concat_tables([pq.read_table(path) for path in files]).to_pylist():
            logged.setdefault(row[Col.request], []).append(row)
    for request, answer in answers.items():
        rows = logged[request]
        assert [row[Col.item] for row in rows] == [item["item_id"] for item in answer["items"]]
        assert {row[Col.arm] for row in rows} == {answer["arm"]}
        chances = [row[Col.propensity] for row in rows]
        if answer["arm"] == "control":
            assert chances == [1.0] * 5
        else:
            assert all(0 < chance < 1 for chance in chances)
    running.configure(bundle)
    running.wait_for_arms("default")
