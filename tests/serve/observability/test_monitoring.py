"""Dashboard and alerts without a service; tests/serve/running asks a running one."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from monitoring import ALERTS, DASHBOARD, PROMETHEUS, alerts, all_names, names, panels

from serve.observability.metrics import METRICS, PREFIX

ALERTS_TEST = Path(__file__).with_name("alerts_test.yml")
EXPORTED = {
    f"ray_{PREFIX}{name}{suffix}"
    for name, metric in METRICS.items()
    for suffix in (("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",))
}


def test_every_expression_reads_metrics_that_there_are() -> None:
    assert len(panels()) >= 10 and len(alerts()) >= 6
    assert {name for name in all_names() if name.startswith("ray_")} <= EXPORTED
    # A query that reads nothing would never be empty, and never be right.
    assert all(names(each) for some in panels().values() for each in some)


def test_ray_takes_every_histogram_s_buckets() -> None:
    """It refuses a bound of 0, and with it the replica."""
    for name, metric in METRICS.items():
        assert (metric.kind == "histogram") == bool(metric.buckets), name
        assert list(metric.buckets) == sorted(metric.buckets)
        assert all(bound > 0 for bound in metric.buckets), name


def test_every_metric_is_looked_at() -> None:
    read = all_names()
    unread = [name for name in METRICS if not any(PREFIX + name in each for each in read)]
    assert unread == []


@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")
def test_the_proxy_s_backend_is_named_after_the_application() -> None:
    from serve.ray.app import NAME

    for text in (ALERTS.read_text(), DASHBOARD.read_text().replace('\\"', '"')):
        assert text.count("haproxy_backend") == text.count(f'proxy="http-{NAME}"') > 0


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken and all(x < 24 for x, _ in cells), panel["title"]
        assert panel["description"]
        taken |= cells


def test_every_alert_is_fired_by_its_test() -> None:
    tests = {test["name"]: test for test in yaml.safe_load(ALERTS_TEST.read_text())["tests"]}
    for test in tests.values():
        assert [rule["alertname"] for rule in test["alert_rule_test"]] == list(alerts())
    assert all("exp_alerts" in rule for rule in tests["nothing is well"]["alert_rule_test"])


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", str(PROMETHEUS)), ("test", "rules", str(ALERTS_TEST))],
    ids=" ".join,
)
def test_promtool_is_content(arguments: tuple[str, ...]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on PATH; on Debian it comes with the package `prometheus`")
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
