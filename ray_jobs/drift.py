"""A bundle's reference and what came since -> `drift.json`.

python -m ray_jobs.drift --config recipes/demo.yaml --window-days 7
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.common.tasks import tasks_on
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.registry import CHAMPION
from recsys.artifacts.run import Run
from recsys.drift.findings import DRIFT_FILE, findings, read_findings
from recsys.drift.measuring import Window, count_clicks, days_of, last_whole_day, measure
from recsys.drift.promises import clicks_by_promised
from recsys.drift.quantities import CTR, TOP_SCORE, ItemFacts
from recsys.drift.reference import Reference
from recsys.drift.scores import score_counts
from recsys.recommender.loading import load_scorer
from recsys.reporting.page import write_page
from recsys.schema import Col
from recsys.storage.outputs import write_json


def plan(run: Run, *, window_days: int | None = None) -> list[str]:
    """What a run would do.

    Raises:
        BundleError: there is no bundle, or it has no reference.
        DataError: nothing is prepared.
    """
    bundle = _bundle(run, verify=False)
    window = _window(run, Reference.of(bundle), window_days)
    if not window.days:
        return [f"find nothing to compare: {_nothing(bundle)}", f"write {run.root / DRIFT_FILE}"]
    days = days_of(window)
    return [
        f"count {days[0]} to {days[-1]} in {len(run.prepared.shards)} history shards",
        f"lay them beside the reference of {bundle.version}",
        f"write {run.root / DRIFT_FILE} and {run.page_file.name}",
    ]


def execute(run: Run, *, window_days: int | None = None) -> Path:
    """Compare what came after the champion's log (without one: the bundle's) with its last days.

    Args:
        run: with prepared data.
        window_days: at most so many of the last days; None: as the recipe says.

    Raises:
        BundleError: there is no bundle, it is broken, or it has no reference.
        DataError: nothing is prepared, or a file is broken.
    """
    recipe, prepared, bundle = run.recipe, run.prepared, _bundle(run)
    reference = Reference.of(bundle)
    window = _window(run, reference, window_days)
    now, promised = {}, None
    if window.days:
        facts = ItemFacts.of(prepared, prepared.daily_counts())
        with tasks_on(recipe) as run_tasks:
            now = measure(recipe, prepared, window, reference.bins, facts, run_tasks)
        if (clicks := count_clicks(recipe, window)) is not None:
            now[CTR] = clicks
            promised = clicks_by_promised(bundle, run, window)
        if TOP_SCORE in reference.bins:
            row_of = {item: row for row, item in enumerate(bundle.items[Col.item])}
            rows = np.array([row_of.get(item, -1) for item in prepared.item_ids()], np.int32)
            scorer, bins = load_scorer(bundle), reference.bins[TOP_SCORE]
            scores = score_counts(scorer, prepared, window, recipe.seed, bins, rows)
            now |= {} if scores is None else {TOP_SCORE: scores[1]}
    path = run.root / DRIFT_FILE
    write_json(path, findings(bundle.version, reference, window, now, recipe.drift, promised))
    recipe.shared.hand_in(path)
    write_page(run)
    return path


def report(run: Run) -> list[str]:
    """Every quantity, then and now, and whether a full run is asked for."""
    found = read_findings(run.root / DRIFT_FILE)
    if found["days"] is None:
        return [f"nothing to compare: no event since the log of {found['bundle']}"]
    then, now = (" to ".join(found[name]) for name in ("reference_days", "days"))
    lines = [f"{now} beside {then}, the reference of {found['bundle']}", ""]
    rows = [["", "users", "then", "now", "PSI or change", "95 %", ""]]
    rows += [list(_row(each)) for each in found["quantities"]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if found["not_compared"]:
        lines += ["", f"not compared, not known then or now: {', '.join(found['not_compared'])}"]
    asked = f"a full run is asked for: {found['reason']}"
    return [*lines, "", asked if found["asks_full_run"] else "no full run is asked for"]


def _row(told: dict[str, Any]) -> Iterator[str]:
    yield told["name"]
    yield f"{told['users'][1]:,}"
    is_share = told["kind"] != "distribution"  # or a ratio beside 1
    for name in ("reference", "now"):
        yield f"{told[name]:.4f}" if is_share and told[name] is not None else "-"
    if told["interval"] is None:
        yield from ("-", "-", told["verdict"])
        return
    low, high = told["interval"]
    figure = told["now"] - told["reference"] if is_share else told["psi"]
    yield f"{figure:+.4f}" if is_share else f"{figure:.4f}"
    yield f"[{low:+.4f}, {high:+.4f}]" if is_share else f"[{low:.4f}, {high:.4f}]"
    yield told["verdict"]


def _bundle(run: Run, *, verify: bool = True) -> Bundle:
    """The champion; where there is none yet, the run's bundle."""
    if run.registry.champion() is None:
        return run.bundle(verify=verify)
    return Bundle.open(run.registry.path(CHAMPION), verify=verify)


def _window(run: Run, reference: Reference, window_days: int | None) -> Window:
    """The last days of the prepared data, of those after the reference."""
    last = last_whole_day(run.prepared.daily_counts().days)
    most = window_days or run.recipe.drift.days
    first = max(reference.window.last + 1, last - most + 1)
    return Window(first, max(0, last - first + 1))


def _nothing(bundle: Bundle) -> str:
    return f"no event since the log of {bundle.version}"


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("drift")
