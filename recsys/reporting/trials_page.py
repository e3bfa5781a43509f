"""The page of a search: what was drawn beside what came of it, and the metric by epoch.

One HTML file that holds all it shows, Plotly's script included: it fetches nothing.
"""

from __future__ import annotations

import html
import importlib.util
import math
from pathlib import Path
from typing import Any

import polars as pl

from recsys.config import Recipe
from recsys.evaluation.report import METRIC
from recsys.storage.outputs import whole_file

#: What is said where Plotly is not installed.
NEEDS_PLOTLY = "no page of the trials: pip install 'raycommend[tune]' brings Plotly"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 15px sans-serif; margin: 2em auto; max-width: 72em; padding: 0 1em }}
table {{ border-collapse: collapse }} td, th {{ padding: .2em .8em; text-align: left }}
tr:nth-child(even) {{ background: #f3f3f6 }}</style></head>
<body><h1>{title}</h1><p>{about}</p>
<h2>Settings and {metric}</h2>{parallel}
<h2>{metric} by epoch</h2>{curves}
<h2>Trials</h2>{table}</body></html>
"""


def can_draw() -> bool:
    """Whether Plotly is installed."""
    return importlib.util.find_spec("plotly") is not None


def write_page(path: Path, recipe: Recipe, table: pl.DataFrame) -> None:
    """Write the page, whole or not at all.

    Args:
        path: of the HTML file.
        recipe: of the search.
        table: see `recsys.artifacts.trials.trials_frame`.
    """
    names = list(recipe.tune.space)
    trials = table.group_by("trial", maintain_order=True).agg(
        pl.col("status", "reason", *names).first(),
        pl.col("epoch").max().alias("epochs"),
        pl.col(METRIC).max(),
        pl.col("seconds").max(),
    )
    about = (
        f"{trials.height} trials, {recipe.tune.search} search, scheduler {recipe.tune.scheduler}, "
        f"seed {recipe.seed}; {METRIC} is of the validation window."
    )
    text = _PAGE.format(
        title=html.escape(f"Search of {recipe.name}"),
        about=html.escape(about),
        metric=html.escape(METRIC),
        parallel=_parallel(trials, names, recipe),
        curves=_curves(table),
        table=_table(trials, names),
    )
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _parallel(trials: pl.DataFrame, names: list[str], recipe: Recipe) -> str:
    """Parallel coordinates: an axis a setting, one for the metric; a line a trial."""
    from plotly import graph_objects

    rated = trials.filter(pl.col(METRIC).is_not_null())
    axes = [
        _axis(name, rated[name].to_list(), recipe.tune.space[name].loguniform is not None)
        for name in names
    ]
    values = rated[METRIC].to_list()
    axes.append({"label": METRIC, "values": values})
    line = {"color": values, "colorscale": "Viridis", "showscale": True}
    figure = graph_objects.Figure(graph_objects.Parcoords(line=line, dimensions=axes))
    return _div(figure, with_script=True)


def _axis(name: str, values: list[Any], is_log: bool) -> dict[str, Any]:
    """A setting's axis: powers of ten of a log-uniform range, names of what is no number."""
    if is_log:
        logs = [math.log10(value) for value in values]
        ticks = range(math.floor(min(logs, default=0)), math.ceil(max(logs, default=0)) + 1)
        return {
            "label": name, "values": logs,
            "tickvals": list(ticks), "ticktext": [f"{10.0**tick:g}" for tick in ticks],
        }  # fmt: skip
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return {"label": name, "values": values}
    kinds = sorted({str(value) for value in values})
    return {
        "label": name, "values": [kinds.index(str(value)) for value in values],
        "tickvals": list(range(len(kinds))), "ticktext": kinds,
    }  # fmt: skip


def _curves(table: pl.DataFrame) -> str:
    """A line a trial: the metric after each epoch, with its seconds until then."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    rated = table.filter(pl.col("epoch").is_not_null())
    for (trial,), points in rated.group_by("trial", maintain_order=True):
        seconds = [f"{each:.0f} s" for each in points["seconds"]]
        figure.add_scatter(
            x=points["epoch"].to_list(), y=points[METRIC].to_list(), text=seconds,
            name=f"{trial} ({points['status'][0]})", mode="lines+markers",
        )  # fmt: skip
    figure.update_layout(xaxis={"title": "epoch", "dtick": 1}, yaxis={"title": METRIC})
    return _div(figure, with_script=False)


def _div(figure: Any, *, with_script: bool) -> str:
    return str(
        figure.to_html(full_html=False, include_plotlyjs=with_script, config={"displaylogo": False})
    )


def _table(trials: pl.DataFrame, names: list[str]) -> str:
    """The trials, best first."""
    columns = ["trial", METRIC, *names, "epochs", "seconds", "status", "reason"]
    rows = [f"<tr>{''.join(f'<th>{html.escape(name)}</th>' for name in columns)}</tr>"]
    for row in trials.select(columns).iter_rows():
        cells = "".join(f"<td>{html.escape(_told(value))}</td>" for value in row)
        rows.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _told(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
