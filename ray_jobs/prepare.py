"""Raw log -> prepared data: checked, pseudonymous, bucketed by user, cut by time.

    python -m ray_jobs.prepare --config recipes/demo.yaml

Each part of the log is split into user-hash buckets in storage; then one task builds one bucket's
histories and its pairs of items, which are added up by ranges of items. Ray Data shards and
schedules, Polars works inside a shard. Memory is bounded by `data.memory_gb`, whatever the log's
size. The steps are those of `recsys.preparation.preparing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ray_jobs.common.tasks import tasks_on
from recsys.artifacts.run import Run
from recsys.data.adapters.listing import told
from recsys.data.feedback import count_rows, finished
from recsys.errors import raise_all
from recsys.preparation.coverage import duplicates_told
from recsys.preparation.memory import buckets_of, tasks_at_once
from recsys.preparation.prepared import QUARANTINE_DIR
from recsys.preparation.preparing import prepare
from recsys.preparation.survey import survey


def plan(run: Run) -> list[str]:
    """What a run would do and find; see `recsys.preparation.survey`.

    Raises:
        DataError: the run would be refused; one error for all the reasons there are.
    """
    recipe, feedback = run.recipe, run.feedback
    found = survey(recipe)
    raise_all(found.problems)
    parts = found.scan.parts
    rows = sum(part.num_rows for part in parts)
    live, erased, mirror = finished(feedback.events), feedback.erased(), run.feedback_mirror
    num_live = count_rows(live)
    return [
        f"read {rows:,} rows in {len(parts)} parts ({recipe.data.adapter})",
        *(f"leave out {what}" for what in _left_out(found.scan.left_out)),
        *([f"fetch the live events and erasures of {mirror.location} first"] if mirror else []),
        *([f"read {num_live:,} live events in {feedback.events}"] if live else []),
        *([f"leave out {len(erased):,} erased users"] if erased else []),
        *found.found,
        *(f"warn: {warning}" for warning in found.warnings),
        f"split them into {buckets_of(recipe.data, rows + num_live)} user buckets and build the "
        f"histories, at most {tasks_at_once(recipe.data)} tasks at once on a machine",
        f"write {run.prepared_folder}",
    ]


def execute(run: Run) -> Path:
    """Prepare the recipe's log.

    Returns:
        The folder with the prepared data.

    Raises:
        DataError: the log or the catalogue cannot be used; nothing is written.
    """
    mirror = run.feedback_mirror
    if mirror is not None:
        with run.feedback.locked(exclusive=False):
            mirror.pull()
    return prepare(run.recipe, tasks_on(run.recipe))


def _left_out(left_out: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Files that were no data, table by table, in words."""
    return [f"in {table}: {told(whys)}" for table, whys in left_out.items() if whys]


def report(run: Run) -> list[str]:
    """What a finished run made."""
    prepared = run.prepared
    counts = prepared.summary["counts"]
    lines = [
        f"{counts['events']:,} events of {counts['users']:,} users, {counts['items']:,} items with "
        f"{counts['texts']:,} distinct texts",
        f"baskets: head {counts['head_baskets']:,}, valid {counts['valid_baskets']:,}, "
        f"test {counts['test_baskets']:,}",
    ]
    lines += duplicates_told(counts["duplicates"], counts["events"])
    if counts["superseded"]:
        lines.append(f"{counts['superseded']:,} rows of items superseded by newer ones")
    if counts["live"]:
        lines.append(f"{counts['live']:,} of the rows were taken in by the service")
    if counts["erased"]:
        lines.append(f"{counts['erased']:,} rows of erased users left out")
    lines += [f"left out {what}" for what in _left_out(prepared.summary["left_out_files"])]
    refused = prepared.quarantined_items()
    for what, whys in (("events", prepared.summary["quarantined"]), ("items", refused)):
        if whys:
            told = ", ".join(f"{number:,} {why}" for why, number in whys.items())
            lines.append(f"quarantined {what}: {told} (in {prepared.folder / QUARANTINE_DIR})")
    return lines + [f"warning: {warning}" for warning in prepared.summary["warnings"]]


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("prepare")
