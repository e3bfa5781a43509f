"""How it was trained: learning curves, and the trials of a search."""

from __future__ import annotations

from typing import Any, Final

import polars as pl
from markupsafe import Markup

from recsys.artifacts.trials import COLUMNS
from recsys.evaluation.report import METRIC
from recsys.reporting.blocks import Block, Section, Table
from recsys.reporting.figures import Line, figure
from recsys.reporting.findings import Findings

_NAME, _TITLE = "training", "Training and search"
#: Trials whose curves are drawn, and that are in the table, the best first.
_DRAWN, _LISTED = 5, 20
_LOSS: Final = "loss"


def section(found: Findings) -> Section:
    """The metric and the loss by epoch; of a search its trials."""
    if found.trials is not None:
        return Section(_NAME, _TITLE, _search(found.trials, found.has_trials_page))
    curve = found.winner.get("curve")
    if not curve:
        return Section(_NAME, _TITLE, absent="nothing was trained: `recsys tune` does")
    return Section(_NAME, _TITLE, _curves([("", curve)]))


def _search(trials: pl.DataFrame, has_page: bool) -> list[Block]:
    every = trials.partition_by("trial", maintain_order=True)
    names = [name for name in trials.columns if name not in COLUMNS]
    rows = [
        (
            part["trial"][0],
            _told(part[METRIC].max()),
            *(_told(part[name][0]) for name in names),
            _told(part["epoch"].max()),
            _told(part["seconds"].max(), ".0f"),
            ": ".join(filter(None, (part["status"][0], part["reason"][0]))),
        )
        for part in every[:_LISTED]
    ]
    columns = ("Trial", "nDCG@10", *names, "Epochs", "Seconds", "Status")
    more = f", the best {_LISTED} of {len(every)}" if len(every) > _LISTED else ""
    numbers = range(1, len(columns) - 1)
    curves = _curves([(part["trial"][0], part.rows(named=True)) for part in every[:_DRAWN]])
    table = Table(f"Trials, the best first{more}", columns, rows, numbers, marked=[0])
    beside = "`trials.html`, beside this page, shows every setting against the metric."
    return [*curves, table, *([beside] if has_page else [])]


def _curves(trials: list[tuple[str, list[dict[str, Any]]]]) -> list[Block]:
    """The metric of the validation window and the loss, each by epoch."""
    figures = []
    for column, told in ((METRIC, "nDCG@10"), (_LOSS, "loss")):
        lines = [
            Line(name, [(p["epoch"], p[column]) for p in curve if p.get(column) is not None])
            for name, curve in trials
        ]
        what = "of the validation window" if column == METRIC else "of the training"
        if any(line.points for line in lines):
            figures.append(
                figure(lines, caption=f"{told} {what} by epoch", across="epoch", up=told)
            )
    return [Markup('<div class="figures">{}</div>').format(Markup().join(figures))]


def _told(value: Any, form: str = ".4g") -> str:
    if value is None:
        return "–"
    return f"{value:{form}}" if isinstance(value, float) else str(value)
