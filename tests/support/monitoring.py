"""What the dashboard and the alerts ask Prometheus for, and metrics that a test can look into."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import yaml

from serve.observability.metrics import METRICS

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus" / "prometheus.yml"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "raycommend.json"


class Tally:
    """Metrics of this process; a name or label that `METRICS` does not hold is an error."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.values: dict[tuple[str, ...], list[float]] = {}
        self.gauges: dict[tuple[str, ...], float] = {}

    def count(self, name: str, **labels: str) -> None:
        self.counts[self._key("counter", name, labels)] += 1

    def observe(self, name: str, value: float, **labels: str) -> None:
        self.values.setdefault(self._key("histogram", name, labels), []).append(value)

    def set(self, name: str, value: float, **labels: str) -> None:
        self.gauges[self._key("gauge", name, labels)] = value

    @staticmethod
    def _key(kind: str, name: str, labels: dict[str, str]) -> tuple[str, ...]:
        metric = METRICS[name]
        assert metric.kind == kind and set(labels) == set(metric.labels)
        assert all(isinstance(value, str) for value in labels.values())
        return (name, *(labels[label] for label in metric.labels))


def panels() -> dict[str, list[str]]:
    """Title of each panel -> its expressions, with a real duration for Grafana's."""
    return {
        panel["title"]: [
            target["expr"].replace("$__rate_interval", "10s") for target in panel["targets"]
        ]
        for panel in json.loads(DASHBOARD.read_text())["panels"]
    }


def alerts() -> dict[str, str]:
    """Name of each alert -> its expression."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for rule in group["rules"]}


def names(expression: str) -> set[str]:
    """The metrics that an expression reads, without Prometheus' own `up`."""
    return set(re.findall(r"\b(?:ray|haproxy)_\w+", expression))


def all_names() -> set[str]:
    """Those of the dashboard and of the alerts."""
    expressions = [*alerts().values(), *(each for some in panels().values() for each in some)]
    return set().union(*map(names, expressions))
