"""Answered lists and shops' own impressions -> one row an exposure, with what came of it.

    python -m ray_jobs.exposures --config recipes/demo.yaml

Parts of the log and of the feedback are split into buckets in storage and joined there by two
shuffles, as in `prepare`: Ray Data shards and schedules, Polars works inside a shard, memory is
bounded by `data.memory_gb`. The steps are those of `recsys.outcomes.joining`.
"""

from __future__ import annotations

from pathlib import Path

from ray_jobs.common.tasks import tasks_on
from recsys.artifacts.run import Run
from recsys.data.adapters import open_adapter
from recsys.data.feedback import count_rows
from recsys.data.pseudonyms import load_key
from recsys.errors import raise_all
from recsys.outcomes.attribution import DOUBLE_EXPOSURES, WAYS
from recsys.outcomes.joining import (
    EXPOSURES_DIR,
    SUMMARY_FILE,
    join_exposures,
    read_summary,
    sources_of,
)
from recsys.outcomes.tasks import LISTS_KIND
from recsys.preparation.memory import buckets_of, tasks_at_once


def plan(run: Run) -> list[str]:
    """What a run would do.

    Raises:
        DataError: the run would be refused; one error for all the reasons there are.
    """
    recipe, feedback, mirror = run.recipe, run.feedback, run.feedback_mirror
    scan = open_adapter(recipe.data).scan()
    raise_all(scan.problems)
    load_key(recipe.privacy, recipe.root, create=False)
    rows = sum(part.num_rows for part in scan.parts)
    files = sources_of(feedback)
    lists = count_rows([path for path, kind in files if kind == LISTS_KIND])
    live = count_rows([path for path, kind in files if kind != LISTS_KIND])
    erased = feedback.erased()
    return [
        f"read {rows:,} rows in {len(scan.parts)} parts ({recipe.data.adapter})",
        *([f"fetch the lists, events and erasures of {mirror.location} first"] if mirror else []),
        f"read {lists:,} items of answered lists and {live:,} live events in {feedback.folder}",
        *([f"leave out {len(erased):,} erased users"] if erased else []),
        f"join them by request, else within {recipe.data.attribution_window_h:g} h, in "
        f"{buckets_of(recipe.data, rows + lists + live)} buckets, at most "
        f"{tasks_at_once(recipe.data)} tasks at once on a machine",
        f"write {run.root / EXPOSURES_DIR}",
    ]


def execute(run: Run) -> Path:
    """Join the exposures of the run's log and feedback.

    Returns:
        The folder with the exposures.

    Raises:
        DataError: the log cannot be used; nothing is written.
    """
    mirror = run.feedback_mirror
    if mirror is not None:
        with run.feedback.locked(exclusive=False):
            mirror.pull()
    return join_exposures(run.recipe, tasks_on(run.recipe))


def report(run: Run) -> list[str]:
    """What a finished run made."""
    summary = read_summary(run.root / EXPOSURES_DIR)
    counts, days = summary["counts"], summary["days"]
    happened = ", ".join(
        f"{sum(day[name] for day in days.values()):,} {name}"
        for name in ("clicked", "carted", "purchased", "returned")
    )
    lines = [
        f"{counts['exposures']:,} exposures on {len(days):,} days: {happened}",
        f"{counts['outcomes_in']:,} outcomes: "
        + ", ".join(f"{counts[way]:,} {way.replace('_', ' ')}" for way in WAYS),
    ]
    if counts[DOUBLE_EXPOSURES]:
        lines.append(f"{counts[DOUBLE_EXPOSURES]:,} exposures were told twice, and count once")
    for what in ("unusable", "erased"):
        if counts[what]:
            lines.append(f"{counts[what]:,} rows left out: {what}")
    if not counts["exposures"]:
        lines.append("warning: nobody logged what was shown: no list, no event `impression`")
    return [*lines, f"the counts lie in {run.root / EXPOSURES_DIR / SUMMARY_FILE}"]


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("exposures")
