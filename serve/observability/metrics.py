"""The metrics of the service, independent of where they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

#: Begin of every name. Ray writes `ray_` before it.
PREFIX = "raycommend_"
#: Upper bounds of the buckets of times, seconds.
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
COUNTS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        kind: what is kept of the values.
        description: what it says, with its unit.
        labels: names of its labels; their values are few, and none comes from a request as it is.
        buckets: of a histogram, upper bounds.
    """

    kind: Literal["counter", "gauge", "histogram"]
    description: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


#: Name, without `PREFIX` -> metric.
METRICS = {
    "requests_total": Metric(
        "counter",
        "Requests answered; path `other`: no route; status of gRPC: that of HTTP in its place.",
        ("path", "status"),
    ),
    "request_seconds": Metric(
        "histogram", "From the request's arrival at the replica to its answer.", ("path",), SECONDS
    ),
    "stage_seconds": Metric(
        "histogram",
        "Where a request's time goes. receive: key, body, checks; text: the text encoder; wait: "
        "for a thread; history: what is known of the user; score: scores, filters, the list; "
        "explain: reasons; answer: titles, JSON; store: events written.",
        ("stage",),
        SECONDS,
    ),
    "answers_total": Metric(
        "counter",
        "Answers of /recommend and /rank by what they rest on (personal, session or popularity), "
        "by the arm that gave them, and by the arm that failed and was stood in for (-: none did).",
        ("basis", "arm", "failed_arm"),
    ),
    "shadow_lists_total": Metric(
        "counter",
        "Lists that a shadow arm was to rank: compared, dropped (too many waited), or failed.",
        ("arm", "result"),
    ),
    "shadow_overlap": Metric(
        "histogram", "Share of an answer's items that the shadow arm would show.", ("arm",), SHARES
    ),
    "shadow_rank_biased_overlap": Metric(
        "histogram", "Likeness of the two lists, the first places weighing most.", ("arm",), SHARES
    ),
    "shadow_seconds": Metric("histogram", "What the shadow arm's list takes.", ("arm",), SECONDS),
    "ongoing_requests": Metric("gauge", "Requests in this replica now."),
    "pass_requests": Metric(
        "histogram", "Requests whose histories the model reads at once.", (), COUNTS
    ),
    "text_batch_items": Metric(
        "histogram", "New items that one request sends to the text encoder.", (), COUNTS
    ),
    "text_models_total": Metric(
        "counter",
        "Calls of the text encoder whose language model was loaded (hit) or had to be (miss).",
        ("result",),
    ),
    "model_info": Metric("gauge", "1 for the bundle that answers.", ("version",)),
    "failed_update": Metric(
        "gauge", "1 if the bundle that was sent last could not be loaded; see GET /model."
    ),
    "dropped_impressions": Metric(
        "gauge",
        "Items that this replica showed and did not log: the disk is full, or does not keep up.",
    ),
    "last_write_timestamp_seconds": Metric(
        "gauge",
        "Unix time when this replica last stored an event that was new; when it started, until "
        "then. The newest of all replicas tells how old the service's news of its users is.",
    ),
    "drift_check_timestamp_seconds": Metric("gauge", "Unix time of the run's last `recsys drift`."),
    "drift_asks_full_run": Metric("gauge", "1 if it asks for a full run."),
    "drift_verdict": Metric(
        "gauge", "3 drifted, 2 moderate, 1 stable, 0 too few users to say.", ("quantity",)
    ),
    "drift_psi": Metric(
        "gauge", "Population stability index, then against now.", ("quantity",)
    ),
    "drift_share": Metric(
        "gauge", "Of the bundle's reference (then) and of the last days (now).",
        ("quantity", "window"),
    ),
}  # fmt: skip


class Metrics(Protocol):
    """Keeps the figures of one process; every method may be called from several threads."""

    def count(self, name: str, **labels: str) -> None:
        """Add one to a counter."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a histogram."""

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""


class NoMetrics:
    """Metrics that are kept nowhere."""

    def count(self, name: str, **labels: str) -> None:
        """See `Metrics`."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """See `Metrics`."""

    def set(self, name: str, value: float, **labels: str) -> None:
        """See `Metrics`."""
