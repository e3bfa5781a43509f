"""How well the logged scores tell clicks: curves, the classification report, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from recsys.reporting.blocks import Block, Section, Table, interval, number
from recsys.reporting.figures import Axis, Line, figure
from recsys.reporting.findings import Findings

_NAME, _TITLE = "scores", "How well scores tell clicks"
#: Models in a figure: those with the most exposures.
_MOST: Final = 4
_UNIT: Final = (Axis(0.0, 1.0), Axis(0.0, 1.0))


def section(found: Findings) -> Section:
    """The `scores` of `outcomes.json`."""
    scores = (found.outcomes or {}).get("scores", [])
    told = sorted((each for each in scores if each["auc"]), key=lambda each: -each["exposures"])
    if not told:
        return Section(_NAME, _TITLE, absent="no model has clicks enough with a logged score")
    told = told[:_MOST]
    rows = [
        (
            each["name"],
            f"{each['exposures']:,}",
            f"{each['clicks']:,}",
            number(each["auc"]["value"]),
            interval(*each["auc"]["interval"]),
        )
        for each in told
    ]
    columns = ("Model", "Shown", "Clicked", "AUC", "95 % interval over users")
    note = (
        "Of what was shown alone: each model by its own lists, so models are not compared by it. "
        "Scores are no probabilities: calibration is shown of the monotone function of the score "
        "that fits half of the users, on the others; the threshold is found in the same way."
    )
    curves: list[Block] = [
        _curves(told, "roc", "ROC: clicks found against other items taken for clicks",
                "false positive rate", "true positive rate", diagonal=True),
        _curves(told, "precision_recall", "Precision and recall of clicks", "recall", "precision"),
    ]  # fmt: skip
    judged = [each for each in told if each["classification"]]
    blocks = [note, Table("AUC by model", columns, rows, (1, 2, 3, 4)), *curves]
    if judged:
        blocks += [_calibration(judged), *map(_report, judged)]
    return Section(_NAME, _TITLE, blocks)


def _curves(
    told: Sequence[dict[str, Any]], name: str, caption: str, across: str, up: str,
    *, diagonal: bool = False,
) -> Block:  # fmt: skip
    lines = [Line(each["name"], [(x, y) for x, y in each[name]]) for each in told]
    return figure(
        lines, caption=caption, across=across, up=up, axes=_UNIT, diagonal=diagonal, markers=False
    )


def _calibration(judged: Sequence[dict[str, Any]]) -> Block:
    lines = [
        Line(each["name"], [(chance, share) for chance, share, _ in each["calibration"]["bins"]])
        for each in judged
    ]
    errors = ", ".join(f"{each['name']} {each['calibration']['error']:.4f}" for each in judged)
    return figure(
        lines, caption=f"Calibration after the fit; expected calibration error: {errors}",
        across="probability", up="share clicked", diagonal=True,
    )  # fmt: skip


def _report(each: dict[str, Any]) -> Block:
    found = each["classification"]
    rows = [
        (
            label,
            *(number(found[name][figure], ".3f") for figure in ("precision", "recall", "f1")),
            f"{found[name]['support']:,}",
        )
        for label, name in (("Clicked", "clicked"), ("Not clicked", "not_clicked"))
    ]
    return Table(
        f"Classification report of {each['name']}: clicked from a score of "
        f"{found['threshold']:.4g} on",
        ("", "Precision", "Recall", "F1", "Support"), rows, (1, 2, 3, 4),
    )  # fmt: skip
