"""The report of `benchmarks.quality` as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.quality import like_model
from benchmarks.quality.judging import COVERAGE
from recsys.config import recipe_from_dict, searched
from recsys.evaluation.gate import comparison
from recsys.evaluation.report import METRIC, table

SHOWN = ("hr@5", "ndcg@5", "hr@10", "ndcg@10", "hr@50", "ndcg@50", "mrr@50")
SHOWN_SLICES = ("new_item", "new_user", "head", "tail", "repeat", "first_time")


def render(report: dict[str, Any]) -> list[str]:
    """The report as text."""
    if "rows" not in report:
        return [f"{report['dataset']} ({report['protocol']})", *_render_response(report)]
    rows = report["rows"]
    lines = [
        f"{report['dataset']} ({report['protocol']}): {report['num_questions']:,} rows, "
        f"{report['num_items']:,} items ranked for each",
        *(f"note: {note}" for note in report["notes"]),
        "",
        *_plain(rows, (*SHOWN, COVERAGE), "all", report["cost"]),
        "",
        "with 95 % intervals:",
        *table(rows, (METRIC, "hr@50"), "all"),
    ]
    for slice_ in SHOWN_SLICES:
        of_slice = [row for row in rows if row["slice"] == slice_ and row["metric"] == METRIC]
        if of_slice:
            lines += [
                "",
                f"slice {slice_} ({of_slice[0]['num_rows']:,} rows):",
                *table(rows, (METRIC, "hr@50"), slice_),
            ]
    lines.append("")
    lines += [f"{name}: {beside(gain)}" for name, gain in report["gains"].items()]
    seeds = ", ".join(f"{value:.4f}" for value in report["seeds"])
    chosen = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in searched(recipe_from_dict(report["recipe"])).items()
    )
    lines.append(f"seeds: {METRIC} {seeds}; chosen on validation: {chosen}")
    return lines + _render_response(report)


def beside(gain: dict[str, Any]) -> str:
    """A gain in words; a ratio only where there is an interval, and something to divide by."""
    baseline, of_baseline = gain["baseline"], gain["of_baseline"]
    if not gain["judged"]:
        return f"beside {baseline} {comparison(gain)}"
    ratio = f"{baseline} finds nothing"
    if of_baseline > 0:
        ratio = f"{(of_baseline + gain['difference']) / of_baseline:.2f} x {baseline}"
    return f"{ratio}, paired difference {comparison(gain)}"


def _render_response(report: dict[str, Any]) -> list[str]:
    rows = report["response"]
    if not rows:
        return []
    return [
        "",
        f"the like probability, {rows[0]['num_rows']:,} exposures:",
        *table(rows, like_model.METRICS, "all"),
    ]


def _plain(
    rows: list[dict[str, Any]], metrics: Sequence[str], slice_: str, costs: dict[str, Any]
) -> list[str]:
    cells = {(r["model"], r["metric"]): r["value"] for r in rows if r["slice"] == slice_}
    lines = [f"{'model':<20}" + "".join(f"{metric:>12}" for metric in metrics)]
    lines[0] += f"{'seconds':>9}{'MB':>7}"
    for model, cost in costs.items():
        line = f"{model:<20}" + "".join(f"{cells[model, metric]:>12.4f}" for metric in metrics)
        lines.append(line + f"{cost['seconds']:>9.0f}{cost['peak_mb']:>7.0f}")
    return lines
