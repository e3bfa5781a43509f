"""Exposures -> `outcomes.json`: rates with intervals, and the arms of the recipe side by side.

python -m ray_jobs.outcomes --config recipes/demo.yaml --of arm day
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from recsys.artifacts.run import Run
from recsys.evaluation.arms import MISMATCH_P
from recsys.outcomes.between_arms import planned_shares
from recsys.outcomes.joining import EXPOSURES_DIR, read_summary
from recsys.outcomes.measuring import OUTCOMES_FILE, measure
from recsys.outcomes.rates import RATES
from recsys.preparation.prepared import SUMMARY_FILE
from recsys.reporting.page import write_page
from recsys.schema import TOLD_BY
from recsys.storage.outputs import write_json
from recsys.storage.reading import read_json

_COUNTS = ("exposures", "requests", "users")


def plan(run: Run, *, of: Sequence[str]) -> list[str]:
    """What a run would do.

    Raises:
        DataError: there are no exposures.
    """
    folder = _exposures(run)
    summary = read_summary(folder)
    shares = planned_shares(run.recipe.serve.arms)
    incumbent, others = next(iter(shares), None), list(shares)[1:]
    return [
        f"read {summary['counts']['exposures']:,} exposures on {len(summary['days']):,} days in "
        f"{folder}",
        f"tell their rates by {', '.join(of)}",
        *(f"compare the arm {name} with {incumbent}" for name in others),
        f"write {run.root / OUTCOMES_FILE} and {run.page_file.name}",
    ]


def execute(run: Run, *, of: Sequence[str]) -> Path:
    """Measure what came of what was shown.

    Args:
        run: with exposures.
        of: names of `schema.TOLD_BY`.

    Raises:
        DataError: there are no exposures, or a file is broken.
    """
    folder, path = _exposures(run), run.root / OUTCOMES_FILE
    run.recipe.shared.bring(run.prepared_folder)
    is_prepared = (run.prepared_folder / SUMMARY_FILE).is_file()
    catalogue = pl.Series(run.prepared.item_ids().tolist()) if is_prepared else None
    write_json(path, measure(run.recipe, folder, of, catalogue))
    run.recipe.shared.hand_in(path)
    write_page(run)
    return path


def report(run: Run) -> list[str]:
    """The rates as tables, and what the arms' comparison says."""
    kinds = {"all": list, "by": dict, "comparisons": list, "not_compared": list}
    found = read_json(run.root / OUTCOMES_FILE, "run `recsys outcomes` again", kinds)
    if not found["all"]:
        return ["no exposures: nothing to tell"]
    lines = _table("", found["all"])
    for name in TOLD_BY:
        if name in found["by"]:
            lines += ["", *_table(name, found["by"][name])]
    if unpriced := found["all"][0]["purchases_without_value"]:
        lines += ["", f"warning: {unpriced:,} purchases tell no value, and count as 0 of revenue"]
    if found["num_items"] is None:
        lines += ["", "no coverage: nothing is prepared, so the catalogue is not known"]
    for each in found["comparisons"]:
        lines += ["", *_compared(each)]
    if found["not_compared"]:
        names = ", ".join(found["not_compared"])
        lines += ["", f"not compared: {names}: no share in serve.arms, so none to check them by"]
    return lines


def _exposures(run: Run) -> Path:
    folder = run.root / EXPOSURES_DIR
    run.recipe.shared.bring(folder)
    return folder


def _table(name: str, groups: list[dict[str, Any]]) -> list[str]:
    """Lines of equal columns: a group each."""
    rows = [(name, *_COUNTS, *RATES, "coverage")]
    rows += [
        (
            "(not told)" if group["name"] is None else str(group["name"]),
            *(f"{group[count]:,}" for count in _COUNTS),
            *(_told(group["rates"][rate]) for rate in RATES),
            "-" if group["coverage"] is None else f"{group['coverage']:.4f}",
        )
        for group in groups
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _told(rate: dict[str, Any]) -> str:
    if rate["value"] is None:
        return "-"
    if rate["interval"] is None:
        return f"{rate['value']:.4g} (worth {rate['effective_outcomes']:.1f})"
    return f"{rate['value']:.4g} {_interval(rate['interval'])}"


def _interval(bounds: list[float | None]) -> str:
    low, high = ("?" if bound is None else f"{bound:.4g}" for bound in bounds)
    return f"[{low}, {high}]"


def _compared(found: dict[str, Any]) -> Iterator[str]:
    """A comparison of two arms, a line a rate."""
    ours, theirs = found["users"]
    yield (
        f"{found['challenger']} less {found['incumbent']}: {ours:,} and {theirs:,} users, planned "
        f"{found['planned_share']:.1%} of them; {found['users_in_several_arms']:,} in several arms "
        "are left out"
    )
    if found["mismatch_p"] < MISMATCH_P:
        yield (
            f"  no verdict: users are not split as planned (p = {found['mismatch_p']:.1g}); where "
            "serve.arms has changed meanwhile, set outcomes.arms_since to the day after"
        )
        return
    for name in RATES:
        rate = found["rates"][name]
        if rate["refusals"]:
            yield f"  {name}: no verdict: {'; '.join(rate['refusals'])}"
            continue
        needed = rate["users_needed"]
        wanted = "" if not needed else f"; {needed:,} more users to show the smallest effect"
        yield (
            f"  {name}: {rate['difference']:+.4g} {_interval(rate['interval'])}: "
            f"{rate['verdict']}{wanted}"
        )


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("outcomes")
