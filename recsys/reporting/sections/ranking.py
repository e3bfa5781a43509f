"""How well it ranks: beside the baselines, slice by slice, and what diversity costs."""

from __future__ import annotations

from typing import Any, Final

from recsys.evaluation.report import METRIC, OURS, SLICES
from recsys.reporting.blocks import Folded, Section, Table, interval, number
from recsys.reporting.figures import Axis, Line, figure, whisker
from recsys.reporting.findings import Findings
from recsys.reporting.sections.verdict import METRIC_TOLD

#: Metric -> what it is called on the page.
NAMES: Final = {
    METRIC: "nDCG@10", "hr@10": "Hit rate@10", "recall@50": "Recall@50", "auc": "AUC",
}  # fmt: skip
_NOT_EVALUATED: Final = "nothing was evaluated: `recsys evaluate` does"


def slice_told(name: str) -> str:
    """A slice's name as words."""
    return name.replace("_", " ")


def baselines(found: Findings) -> Section:
    """All models on all baskets, the best first."""
    name, title = "baselines", "Beside the baselines"
    if not found.report:
        return Section(name, title, absent=_NOT_EVALUATED)
    report = found.report
    cells = _cells(report, "all")
    ranked = sorted({model for model, _ in cells}, key=lambda model: -cells[model, METRIC]["value"])
    rated = [cells[model, METRIC] for model in ranked]
    axis = Axis.of([bound for row in rated for bound in _ends(row)], with_zero=True)
    others = [metric for metric in NAMES if metric != METRIC and (OURS, metric) in cells]
    rows = [
        (
            model,
            number(row["value"]),
            _whisker(row, axis),
            interval(row["low"], row["high"]),
            *(number(cells[model, metric]["value"]) for metric in others),
        )
        for model, row in zip(ranked, rated, strict=True)
    ]
    columns = ("Model", NAMES[METRIC], "", "95 % interval", *(NAMES[each] for each in others))
    asked = (
        f"{report['num_questions']:,} baskets of the test window; each model ranks all "
        f"{report['num_items']:,} items. {METRIC_TOLD}"
    )
    table = Table(
        "Models by nDCG@10", columns, rows, (1, *range(3, len(columns))),
        marked=[ranked.index(OURS)],
    )  # fmt: skip
    return Section(name, title, [asked, table, Folded("How it is measured", [report["protocol"]])])


def slices(found: Findings) -> Section:
    """The bundle beside the best baseline of each slice."""
    name, title = "slices", "For whom, and for what"
    if not found.report:
        return Section(name, title, absent=_NOT_EVALUATED)
    pairs = []
    for slice_ in SLICES:
        cells = [
            row for (_, metric), row in _cells(found.report, slice_).items() if metric == METRIC
        ]
        ours = [row for row in cells if row["model"] == OURS]
        others = [row for row in cells if row["model"] != OURS]
        pairs += ours + sorted(others, key=lambda row: -row["value"])[:1]
    axis = Axis.of([bound for row in pairs for bound in _ends(row)], with_zero=True)
    rows = [
        (
            slice_told(row["slice"]),
            row["model"],
            number(row["value"]),
            _whisker(row, axis),
            interval(row["low"], row["high"]),
            f"{row['num_rows']:,}",
        )
        for row in pairs
    ]
    table = Table(
        "nDCG@10 by slice, beside the slice's best baseline",
        ("Slice", "Model", "nDCG@10", "", "95 % interval", "Baskets"),
        rows, (2, 4, 5), [place for place, row in enumerate(pairs) if row["model"] == OURS],
    )  # fmt: skip
    told = Table(
        "The slices", ("Slice", "What is in it"), [(slice_told(n), t) for n, t in SLICES.items()]
    )
    return Section(name, title, [table, Folded("What the slices are", [told])])


def diversity(found: Findings) -> Section:
    """What variety within a list costs."""
    name, title = "diversity", "What variety costs"
    points = found.report.get("diversity")
    if not points:
        return Section(name, title, absent="not measured: `recsys evaluate` of this release does")
    line = Line(
        "",
        [(at["intra_list"], at[METRIC]) for at in points],
        [f"{at['diversity']:g}" for at in points],
    )
    axes = (
        Axis.of([across for across, _ in line.points]),
        Axis.of([up for _, up in line.points], with_zero=True),
    )
    rows = [
        (f"{at['diversity']:g}", number(at[METRIC]), number(at["intra_list"], ".3f"),
         f"{at['coverage']:.1%}")
        for at in points
    ]  # fmt: skip
    return Section(
        name, title,
        [
            "`serve.diversity` makes the items of a list differ more, for some of its accuracy. "
            "The number at a point is the setting.",
            figure(
                [line], caption="nDCG@10 by variety within a list, over some 300 baskets",
                across="variety within a list (1 - cosine)", up="nDCG@10", axes=axes,
            ),
            Table(
                "Settings of serve.diversity",
                ("Setting", "nDCG@10", "Variety", "Catalogue in some list"), rows, (1, 2, 3),
            ),
        ],
    )  # fmt: skip


def _cells(report: dict[str, Any], slice_: str) -> dict[tuple[str, str], dict[str, Any]]:
    """(model, metric) -> row of the report."""
    return {(row["model"], row["metric"]): row for row in report["rows"] if row["slice"] == slice_}


def _ends(row: dict[str, Any]) -> list[float]:
    return [row[name] for name in ("low", "value", "high") if row[name] is not None]


def _whisker(row: dict[str, Any], axis: Axis) -> str:
    return whisker(row["value"], row["low"], row["high"], axis, 0 if row["model"] == OURS else 1)
