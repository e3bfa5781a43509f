"""What is told of a night: its verdict in a sentence, and what a receiver of the webhook gets."""

from __future__ import annotations

from typing import Any

from recsys.artifacts.run import Run
from recsys.evaluation.evidence import told
from recsys.evaluation.report import METRIC, OURS
from recsys.nightly import Night
from recsys.storage.reading import read_json

FINISHED, REFUSED, FAILED = "night.finished", "night.refused", "night.failed"


def kind_of(night: Night) -> str:
    """The event that a night ends with."""
    if night.failed is not None:
        return FAILED
    return FINISHED if night.refused is None else REFUSED


def verdict_of(run: Run, night: Night) -> str:
    """How a night went, in a sentence."""
    champion = run.registry.champion()
    verb = "stays" if champion == night.champion_before else "is"
    stays = f"{champion} {verb} champion" if champion else "there is no champion"
    if night.failed is not None:
        return f"failed at {night.failed['stage']}: {night.failed['error']}; {stays}"
    if night.refused is not None:
        return f"refused: {night.refused}; {stays}"
    if champion == night.champion_before:
        return f"nothing new was learned; {stays}"
    evidence = told(run.registry.evidence())
    return "; ".join([f"{champion} is champion", *evidence])


def notice_of(run: Run, night: Night) -> dict[str, Any]:
    """What the receiver gets."""
    location = run.recipe.shared.location
    return {
        "run": run.recipe.name,
        "run_dir": str(location or run.root),
        "day": night.day,
        "training": night.way,
        "seconds": night.seconds,
        "verdict": night.verdict,
        "champion": {"before": night.champion_before, "after": run.registry.champion()},
        "metrics": _metrics(run) if "evaluate" in night.stages else None,
        "page": str(location / run.page_file.name if location else run.page_file),
        "failed": night.failed,
    }


def _metrics(run: Run) -> dict[str, Any]:
    """The gate's metric on the test window: of the night's bundle, and of the best baseline."""
    run.bring_results()
    kinds = {"rows": list, "bundle": str}
    report = read_json(run.report_file, "run `recsys evaluate` again", kinds)
    values = {
        row["model"]: row["value"]
        for row in report["rows"]
        if (row["slice"], row["metric"]) == ("all", METRIC)
    }
    best = report["best_baseline"]
    return {
        "metric": METRIC,
        "bundle": report["bundle"],
        "value": values[OURS],
        "best_baseline": best,
        "value_of_best_baseline": values.get(best),
    }
