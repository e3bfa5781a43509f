"""What dashboard and alerts ask for, asked of a running service."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from bundles import item_id
from drifting import stable_night
from monitoring import PROMETHEUS, alerts, all_names, panels
from prometheus_client.parser import text_string_to_metric_families
from running_service import ROOT, Running

from benchmarks.ports import free_ports
from recsys.config import load_recipe
from recsys.drift.findings import DRIFT_FILE
from recsys.storage.outputs import write_json
from serve.launch.own_files import OwnFiles

pytestmark = [pytest.mark.serve, pytest.mark.ray]

DEMO = ROOT / "recipes" / "demo.yaml"


@pytest.fixture
def shadowed(running: Running, bundle: Path) -> Iterator[None]:
    """A shadow arm beside the only one and a check of drift, for the metrics that tell of them."""
    write_json(running.root / DRIFT_FILE, stable_night())
    arms = [{"name": "default"}, {"name": "next", "shadow": True}]
    running.configure(bundle, f"serve.arms={json.dumps(arms)}")
    running.wait_for_arms("default", "next")
    yield
    (running.root / DRIFT_FILE).unlink()
    running.configure(bundle)
    running.wait_for_arms("default")


def use_all_of_it(running: Running) -> None:
    """Requests that leave a figure in every metric."""
    known = {"user_id": "u1", "k": 3, "explain": True}
    running.post("/recommend", known)
    running.post("/recommend", {"history": [{"item_id": item_id(1)}]})
    running.post("/rank", {"user_id": "u1", "candidates": [{"title": "red cup"}]})
    running.post("/events", {"user_id": "u1", "item_id": item_id(5), "event_type": "view"})


@pytest.mark.usefixtures("shadowed")
def test_ray_exports_what_dashboard_and_alerts_read(running: Running) -> None:
    use_all_of_it(running)
    deadline, missing = time.monotonic() + 60, all_names()
    while missing and time.monotonic() < deadline:
        time.sleep(0.5)
        targets = [target for group in running.discovered() for target in group["targets"]]
        found: set[str] = set()
        for target in (*targets, f"127.0.0.1:{running.ports[1]}"):
            text = httpx.get(f"http://{target}/metrics").text
            families = text_string_to_metric_families(text)
            found |= {sample.name for family in families for sample in family.samples}
        missing = all_names() - found
    assert not missing


@pytest.mark.usefixtures("shadowed")
def test_prometheus_answers_what_dashboard_and_alerts_ask(running: Running, tmp_path: Path) -> None:
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("no Prometheus on PATH; on Debian it is the package `prometheus`")
    config = yaml.safe_load(PROMETHEUS.read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS.parent / name) for name in config["rule_files"]]
    ray, haproxy = config["scrape_configs"]
    (targets,) = ray["file_sd_configs"][0]["files"]
    assert (PROMETHEUS.parent / targets).resolve() == OwnFiles.of(load_recipe(DEMO)).targets
    ray["file_sd_configs"][0]["files"] = [running.printed["metrics"]]
    haproxy["static_configs"][0]["targets"] = [f"127.0.0.1:{running.ports[1]}"]
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/api/v1"

    def ask(path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{url}/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def has_data(expression: str) -> bool:
        """Some value that is a number: a share of nothing is NaN."""
        found = ask("query", query=expression)["result"]
        return any(math.isfinite(float(each["value"][1])) for each in found)

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                prometheus, f"--config.file={path}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        empty = {each for some in panels().values() for each in some}
        while empty and time.monotonic() < deadline:
            use_all_of_it(running)
            time.sleep(1)
            try:
                empty = {each for each in empty if not has_data(each)}
            except httpx.ConnectError:
                assert process.poll() is None, (tmp_path / "log").read_text()
        assert not empty
        (group,) = ask("rules")["groups"]
        assert {rule["name"] for rule in group["rules"]} == alerts().keys()
        assert all(rule["health"] == "ok" for rule in group["rules"]), group
        assert not [rule["name"] for rule in group["rules"] if rule["state"] == "firing"]
        (served,) = ask("query", query=next(iter(panels()["Replicas by model"])))["result"]
        assert served["metric"]["version"] == running.model()["version"]
        up = {each["metric"]["job"] for each in ask("query", query="up == 1")["result"]}
        assert up == {"ray", "haproxy"}
    finally:
        process.terminate()
        process.wait(30)
