"""Metrics that Ray exports to Prometheus; each node exports those of its replicas."""

from __future__ import annotations

from typing import Any

from ray.serve import metrics as ray

from serve.observability.metrics import METRICS, PREFIX


class RayMetrics:
    """`Metrics` on Ray's; made inside a replica, whose deployment and name become labels.

    A record takes 3 to 4 microseconds.
    """

    def __init__(self) -> None:
        self._counters: dict[str, ray.Counter] = {}
        self._gauges: dict[str, ray.Gauge] = {}
        self._histograms: dict[str, ray.Histogram] = {}
        for name, metric in METRICS.items():
            name_and_help = (PREFIX + name, metric.description)
            labels: Any = metric.labels  # Ray declares a tuple of one
            match metric.kind:
                case "counter":
                    self._counters[name] = ray.Counter(*name_and_help, tag_keys=labels)
                case "gauge":
                    self._gauges[name] = ray.Gauge(*name_and_help, tag_keys=labels)
                case "histogram":
                    self._histograms[name] = ray.Histogram(
                        *name_and_help, boundaries=list(metric.buckets), tag_keys=labels
                    )

    def count(self, name: str, **labels: str) -> None:
        """See `Metrics`."""
        self._counters[name].inc(1, labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """See `Metrics`."""
        self._histograms[name].observe(value, labels)

    def set(self, name: str, value: float, **labels: str) -> None:
        """See `Metrics`."""
        self._gauges[name].set(value, labels)
