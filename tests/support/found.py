"""What the jobs of a run have found, with a shop's worst titles: for its page."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from recsys.artifacts.trials import trials_frame
from recsys.config import Outcomes
from recsys.evaluation.evidence import Evidence, Rule
from recsys.evaluation.gate import Verdict
from recsys.evaluation.report import COLUMNS, COMPARED, METRIC, OURS, PROTOCOL, summarise
from recsys.outcomes.between_arms import compare_arms
from recsys.outcomes.rates import Tally
from recsys.reporting.findings import Findings

#: Markup, an emoji, right to left with marks that would turn the line, a very long word.
TITLES = (
    "<script>alert('x')</script>", "</td><img src=x onerror=alert(1)>", "🫖 tea & \"pot\"",
    "\u202eكوب أحمر كبير", "x" * 300, "{{ 7 * 7 }} `code`", "",
)  # fmt: skip
US = 1_700_000_000_000_000
BETTER, WORSE, EVEN = (Verdict(d, d - 0.01, d + 0.01, 900) for d in (0.02, -0.02, 0.001))
UNSURE = Verdict(0.1, float("nan"), float("nan"), 3)


def item(number: int) -> dict[str, str]:
    return {"item_id": f"i{number}", "title": TITLES[number % len(TITLES)]}


def report(over: Verdict | None = BETTER, num_users: int = 30) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    values = {
        name: rng.random((2 * num_users, len(COLUMNS))).astype(np.float32) * share
        for name, share in ((OURS, 0.9), ("popularity", 0.3), ("item_knn", 0.6))
    }
    users = np.repeat(np.arange(num_users), 2)
    return {
        "bundle": "b-new", "protocol": PROTOCOL, "num_questions": 60, "num_items": 40,
        "outcomes": card(),
        "best_baseline": over and "item_knn",
        "gain_over_best_baseline": over and over.as_json(),
        "rows": summarise(values, users, num_bootstrap=20, seed=0),
        "diversity": [
            {"diversity": knob, METRIC: 0.3 - knob / 10, "intra_list": 0.2 + knob, "coverage": 0.4}
            for knob in (0.0, 0.5, 1.0)
        ],
    }  # fmt: skip


def card() -> dict[str, Any]:
    """Of heads; nobody's AUC per user is known."""
    told = {name: {"value": 0.7, "low": 0.6, "high": 0.8} for name in ("auc", "log_loss")}
    nan = dict.fromkeys(("value", "low", "high"), float("nan"))
    told |= {"auc_per_user": nan, "ece": 0.01}
    figures = {"heads": told, "item_rate": told | {"auc": nan}}
    head = {"rate": 0.05, "calibration": "isotonic", "figures": figures}
    return {"rows": 5000, "later_rows": 900, "heads": {"click": head}}


def examples() -> dict[str, Any]:
    event = {"event_type": "purchase", "at_us": US}
    reason = {**item(1), "event_type": "view", "count": 2, "last_us": US}
    return {
        "format": 1,
        "bundle": "b-new",
        "users": [
            {
                "user": f"{number:032x}", "asked_us": US, "num_events": number,
                "history": [item(n) | event for n in range(number)],
                "list": [
                    item(n) | {"taken": n == 3, "reasons": [reason] * (n != 2)} for n in range(10)
                ],
                "taken": [item(3), item(77)],
            }
            for number in range(10)
        ],
    }  # fmt: skip


def decision(
    over_champion: Verdict | None = BETTER,
    over_baseline: Verdict | None = BETTER,
    *,
    promoted: bool = True,
    rule: str = "better",
    num_users: int = 900,
) -> dict[str, Any]:
    """Of a champion unless `over_champion` is None."""
    champion = None if over_champion is None else "b-old"
    evidence = Evidence(
        "b-new", num_users, 0.95, champion, champion and Rule(rule, "a test's", 0.02),
        over_champion, 0.0 if rule == "better" else -0.02, "item_knn", over_baseline,
    )  # fmt: skip
    changes = {
        "metrics": [
            {"slice": slice_, "metric": metric, **(UNSURE if n == 3 else BETTER).as_json()}
            for n, (slice_, metric) in enumerate(COMPARED)
        ],
        "recipe": [["train.learning_rate", 0.001, 0.002], ["data.source", "(not set)", "<b>"]],
        "items": {"new": 3, "gone": 1, "both": 39},
        "lists": {f"{n:032x}": [f"i{m}" for m in range(5, 15)] for n in range(10)},
    }
    return {
        "format": 1, "bundle": "b-new", "promoted": promoted, "decided_at": "2026-01-01T00:00:00Z",
        "evidence": evidence.as_json(), "changes": changes if over_champion else None,
    }  # fmt: skip


def outcomes() -> dict[str, Any]:
    """Of two arms on three days."""
    rng, n = np.random.default_rng(0), 3000
    rows = pl.DataFrame(
        {
            "user_id": [f"u{number % 500}" for number in range(n)],
            "request_id": [f"r{number}" for number in range(n)],
            "exposure_id": [f"e{number}" for number in range(n)],
            "item_id": [f"i{number % 7}" for number in range(n)],
            "arm": ["<i>new</i>" if number % 500 < 250 else "old" for number in range(n)],
            "day": [f"2026-01-0{1 + number % 3}" for number in range(n)],
            "clicked": rng.random(n) < 0.2, "carted": rng.random(n) < 0.1,
            "purchased": rng.random(n) < 0.05, "dwell_ms": rng.integers(0, 9000, n),
            "value": rng.random(n), "in_catalogue": [True] * n,
        }
    )  # fmt: skip
    tallies = {name: Tally(column, 40) for name, column in (
        ("all", None), ("arm", "arm"), ("day", "day"),
    )}  # fmt: skip
    for tally in tallies.values():
        tally.add(rows)
    shares = {"old": 0.5, "<i>new</i>": 0.5}
    return {
        "scores": [scores("m<1>"), scores("m2", known=False)],
        "days": 3, "num_items": 40, "all": tallies["all"].groups(),
        "by": {name: tallies[name].groups() for name in ("arm", "day")},
        "comparisons": compare_arms(tallies["arm"].sums, shares, Outcomes(), {}),
    }  # fmt: skip


def scores(name: str, *, known: bool = True) -> dict[str, Any]:
    """Of one model; with `known` off of one with too few clicks."""
    label = {"precision": 0.5, "recall": 0.4, "f1": 0.44, "support": 90}
    curves = {
        "auc": {"value": 0.7, "interval": [0.65, 0.75]},
        "roc": [[0.0, 0.0], [0.3, 0.7], [1.0, 1.0]],
        "precision_recall": [[0.1, 0.9], [1.0, 0.2]],
        "classification": {
            "threshold": 1.5, "accuracy": 0.8, "clicked": label,
            "not_clicked": label | {"precision": None},
        },
        "calibration": {"bins": [[0.1, 0.12, 30], [0.4, 0.35, 30]], "error": 0.03},
    }  # fmt: skip
    counts = {"name": name, "share_of_users": 1.0, "exposures": 900, "clicks": 90, "users": 40}
    return counts | (curves if known else dict.fromkeys(curves))


def drift() -> dict[str, Any]:
    told = {"rows": [900, 700], "users": [90, 70], "unit": "event"}
    of_mix = {"labels": ["view", "<b>"], "reference": [0.5, 0.5], "now": [0.9, 0.1]}
    return {
        "bundle": "b-new", "reference_days": ["2026-01-01", "2026-01-07"],
        "days": ["2026-01-08", "2026-01-14"], "verdict": "drifted", "asks_full_run": True,
        "reason": "event_mix: PSI 0.400 [0.300, 0.500], above 0.25", "not_compared": [],
        "quantities": [
            {"name": "event_mix", "kind": "distribution", "text": "type of the event", "psi": 0.4,
             "interval": [0.3, 0.5], "by_chance": 0.01, "verdict": "drifted", **of_mix, **told},
            {"name": "price", "kind": "distribution", "text": "price", "psi": None,
             "interval": None, "by_chance": None, "verdict": "unknown", **of_mix, **told},
            {"name": "ctr", "kind": "share", "text": "clicked exposures", "reference": 0.04,
             "now": 0.03, "interval": [-0.02, -0.001], "verdict": "moderate", **told},
            {"name": "clicks_per_promised_click", "kind": "ratio", "text": "clicks per promise",
             "reference": 1.0, "now": 0.8125, "interval": [-0.3, -0.1], "verdict": "moderate",
             **told},
        ],
    }  # fmt: skip


def policy_value() -> dict[str, Any]:
    told = {"value": 0.2, "interval": [0.1, 0.3], "refusals": []}
    refused = {"value": None, "interval": [None, None], "refusals": ["too little overlap"]}
    return {
        "bundle": "b-new", "policy": "temperature 0.5", "lists": 900, "users": 90,
        "default": "cascade_doubly_robust",
        "outcomes": {
            "clicks": dict.fromkeys(("logged", "cascade_doubly_robust", "difference"), told),
            "revenue": {"logged": told, "cascade_doubly_robust": refused, "difference": refused},
        },
    }  # fmt: skip


def night() -> dict[str, Any]:
    return {
        "day": "2026-01-14", "verdict": "refused: b-old stays", "refused": "it is <worse>",
        "way": {"kind": "warm", "why": "the recipe is the champion's"},
        "failed": {"stage": "serve", "error": "no answer"},
        "stages": {"compact": {"seconds": 3.0}, "prepare": {"seconds": 1234.5}},
    }  # fmt: skip


def prepared() -> dict[str, Any]:
    counts = {"rows": 100, "events": 90, "users": 9, "items": 40, "texts": 39, "duplicates": 10,
              "head_baskets": 5, "valid_baskets": 6, "test_baskets": 7}  # fmt: skip
    return {
        "counts": counts, "log_us": [US, 2 * US], "event_types": {"view": 80, "purchase": 10},
        "cuts_us": {"head": US, "valid": US, "test": US, "end": None},
        "quarantined": {"null_user_id": 3}, "warnings": ["a <b>warning</b>"],
    }  # fmt: skip


def trials() -> pl.DataFrame:
    curve = [{"epoch": n, METRIC: n / 10, "loss": 1 / n, "train_s": 2.0, "valid_s": 1.0}
             for n in (1, 2)]  # fmt: skip
    best = {"trial": "t<0>", "status": "finished", "reason": None, "curve": curve}
    stopped = {"trial": "t1", "status": "stopped", "reason": "after epoch 1", "curve": curve[:1]}
    failed = {"trial": "t2", "status": "failed", "reason": "no epoch", "curve": []}
    settings = {"train.learning_rate": 0.001, "train.optimizer": "adamw"}
    return trials_frame([each | {"settings": settings} for each in (best, stopped, failed)])


def everything() -> Findings:
    """Of a run whose jobs have all run."""
    return Findings(
        "corner-shop", prepared(), {"curve": []}, trials(), report(), examples(), decision(),
        outcomes(), policy_value(), drift(), night(), True, {"broken.json": "no <JSON> object"},
    )  # fmt: skip
