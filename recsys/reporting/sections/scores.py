"""How well the logged scores tell what was clicked: ROC, precision and recall, calibration."""

from __future__ import annotations

from typing import Any, Final

from markupsafe import Markup

from recsys.reporting.blocks import Block, Folded, Section, Table, interval, number
from recsys.reporting.figures import Axis, Line, figure
from recsys.reporting.findings import Findings

_NAME, _TITLE = "scores", "How well scores tell clicks"
_SHARE: Final = Axis(0.0, 1.0)
#: Models that are drawn: those that were shown most.
_DRAWN: Final = 5


def section(found: Findings) -> Section:
    """The reports by model of `outcomes.json`."""
    models = found.outcomes.get("scores")
    if not models:
        return Section(
            _NAME, _TITLE, absent="not measured: `recsys outcomes` does, of scored lists"
        )
    told = (
        "Of what was shown alone, and so of each model's own choice: this compares no two models. "
        "A score is made a probability on half of the users, and judged on the others."
    )
    rows = [
        (
            each["name"],
            f"{each['exposures']:,}",
            f"{each['clicks']:,}",
            number(each["auc"] and each["auc"]["value"]),
            interval(*(each["auc"]["interval"] if each["auc"] else (None, None))),
            number(each["calibration"] and each["calibration"]["error"]),
        )
        for each in models
    ]
    columns = ("Model", "Shown", "Clicks", "AUC", "95 % interval", "Calibration error")
    table = Table("Scores and clicks, by model", columns, rows, (1, 2, 3, 4, 5))
    reports = [_classified(each) for each in models if each["classification"]]
    most = sorted(models, key=lambda each: -each["exposures"])[:_DRAWN]
    return Section(_NAME, _TITLE, [told, table, _figures(most), *reports])


def _figures(models: list[dict[str, Any]]) -> Markup:
    """The three curves of each model that has them."""

    def lines(name: str) -> list[Line]:
        return [Line(each["name"], each[name]) for each in models if each[name]]

    bins = [
        Line(each["name"], [(x, y) for x, y, *_ in each["calibration"]["bins"]])
        for each in models
        if each["calibration"]
    ]
    drawn = []
    if roc := lines("roc"):
        drawn.append(
            figure(
                roc, caption="ROC; dashed: a guess", across="share of the others found",
                up="share of clicks found", axes=(_SHARE, _SHARE), diagonal=True, markers=False,
            )
        )  # fmt: skip
    if curves := lines("precision_recall"):
        precise = Axis.of([y for line in curves for _, y in line.points], with_zero=True)
        drawn.append(
            figure(
                curves, caption="Precision and recall of clicks", across="recall", up="precision",
                axes=(_SHARE, precise), markers=False,
            )
        )  # fmt: skip
    if bins:
        chance = Axis.of([each for line in bins for point in line.points for each in point],
                         with_zero=True)  # fmt: skip
        drawn.append(
            figure(
                bins, caption="Calibration; dashed: as promised", across="probability told",
                up="share clicked", axes=(chance, chance), diagonal=True,
            )
        )  # fmt: skip
    return Markup('<div class="figures">{}</div>').format(Markup().join(drawn))


def _classified(model: dict[str, Any]) -> Block:
    """Precision, recall and F1 of both labels."""
    report = model["classification"]
    rows = [
        (
            name.replace("_", " "),
            *(number(report[name][each], ".3f") for each in ("precision", "recall", "f1")),
            f"{report[name]['support']:,}",
        )
        for name in ("clicked", "not_clicked")
    ]
    table = Table(
        f"Scores of {report['threshold']:.4g} and more taken for a click; accuracy "
        f"{report['accuracy']:.3f}",
        ("Label", "Precision", "Recall", "F1", "Shown"), rows, (1, 2, 3, 4),
    )  # fmt: skip
    return Folded(f"Classification report of {model['name']}", [table])
