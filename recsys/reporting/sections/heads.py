"""How well the bundle's heads tell clicks, carts and purchases beforehand."""

from __future__ import annotations

from typing import Any

from recsys.reporting.blocks import Section, Table, interval, known, number
from recsys.reporting.figures import Axis, whisker
from recsys.reporting.findings import Findings

_NAME, _TITLE = "heads", "How well it tells outcomes beforehand"


def section(found: Findings) -> Section:
    """The card of the outcome heads, which the report repeats."""
    card = found.report.get("outcomes")
    if not card:
        return Section(
            _NAME, _TITLE, absent="the bundle has no outcome heads: it learned from none"
        )
    told = (
        f"Fitted on {card['rows']:,} items shown and what came of them; judged on the last "
        f"{card['later_rows']:,}, by heads that had not learned from those."
    )
    tables = [_head(name, head) for name, head in card["heads"].items()]
    return Section(_NAME, _TITLE, [told, *tables])


def _head(name: str, head: dict[str, Any]) -> Table:
    """The head of one outcome beside its baselines."""
    figures = head["figures"]
    ends = [each["auc"][end] for each in figures.values() for end in ("low", "value", "high")]
    axis = Axis.of([end for end in ends if known(end)])
    rows = [
        (
            who.replace("_", " "),
            number(each["auc"]["value"]),
            _drawn(each["auc"], axis, place),
            interval(each["auc"]["low"], each["auc"]["high"]),
            number(each["auc_per_user"]["value"]),
            number(each["log_loss"]["value"]),
            number(each["ece"]),
        )
        for place, (who, each) in enumerate(figures.items())
    ]
    columns = ("Model", "AUC", "", "95 % interval", "AUC per user", "Log-loss", "Calibration error")
    caption = f"{name.capitalize()}: happened to {head['rate']:.2%} of what was learned from"
    ours = [place for place, who in enumerate(figures) if who == "heads"]
    return Table(caption, columns, rows, (1, 3, 4, 5, 6), ours)


def _drawn(auc: dict[str, Any], axis: Axis, style: int) -> str:
    if not known(auc["value"]):
        return ""
    low, high = (auc[end] if known(auc[end]) else None for end in ("low", "high"))
    return whisker(auc["value"], low, high, axis, min(style, 1))
