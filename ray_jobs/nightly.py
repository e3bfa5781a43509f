"""A night: what the service took in becomes the next champion, or the one that is stays.

    python -m ray_jobs.nightly --config recipes/demo.yaml

compact, prepare, exposures, drift, train, embed, evaluate, promote, hand over, outcomes, page. A
night that was killed goes on at the stage where it was; see `recsys.nightly`.
"""

from __future__ import annotations

import datetime as dt
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from ray_jobs import compact, prepare
from ray_jobs import report as page
from ray_jobs.cli import written_to
from ray_jobs.common.cluster import connected
from ray_jobs.nights.notice import kind_of, notice_of, verdict_of
from ray_jobs.nights.stages import STAGES, champion_of, decide, recipe_file
from recsys.artifacts.lineage import check_start
from recsys.artifacts.run import Run
from recsys.config import Recipe, searched
from recsys.config.differences import MODEL
from recsys.errors import GateRefused, RaycommendError, cause_of
from recsys.nightly import Night, Nights, WebhookSender, go_through, recipe_of
from recsys.nightly.deciding import with_found
from recsys.nightly.night import now

#: Sections of the recipe that what the stages make depends on.
DECISIVE = (*MODEL, "embed", "evaluate", "promote")


def plan(run: Run, *, day: dt.date | None = None, again: bool = False) -> list[str]:
    """What a run would do."""
    WebhookSender.of(run.recipe.nightly.webhook)
    check_start(run.recipe)
    night, _ = _night(run, day, again)
    if night.ended_at is not None:
        return [f"do nothing: the night of {night.day} is over; --again runs it once more"]
    this = Run.open(_recipe(run.recipe, night))
    cuts, way = this.recipe.data.cuts, decide(this, night)
    left = [stage.name for stage in STAGES if stage.name not in night.stages]
    lines = [
        f"run the night of {night.day}: {', '.join(left)}",
        f"cut the log at {cuts.head_at:%Y-%m-%d} (head), {cuts.valid:%Y-%m-%d} (valid) and "
        f"{cuts.test:%Y-%m-%d} (test)",
    ]
    if "compact" in left:
        missing = compact.missing_store(this)
        lines += [f"take nothing in: {missing.problem}"] if missing else compact.plan(this)
    if "prepare" in left:
        lines += prepare.plan(this)
    if "train" in left:
        lines.append(f"train, {way.kind}: {way.why}")
    return [*lines, f"write {Nights(this.recipe.shared).file(night.day)}"]


def execute(run: Run, *, day: dt.date | None = None, again: bool = False) -> Path:
    """Run a night, or what is left of it.

    Args:
        run: of the recipe.
        day: of the night, UTC; None: today.
        again: begin it anew, however far it has come.

    Returns:
        What is known of the night.

    Raises:
        BundleError: the registry holds another product's line.
        GateRefused: the champion stays; all else is done.
        RaycommendError: a stage failed; the receiver of the webhook was told.
    """
    webhook = WebhookSender.of(run.recipe.nightly.webhook)
    nights = Nights(run.recipe.shared)
    begun = {"stage": "start", "error": "interrupted"}
    night, this = Night((day or _today()).isoformat(), "", now(), failed=begun), run
    try:
        check_start(run.recipe)
        night, is_new = _night(run, day, again)
        if night.ended_at is not None:
            print(f"the night of {night.day} is over; --again runs it once more", flush=True)
            return nights.file(night.day)
        print(f"the night of {night.day}: {'begins' if is_new else 'goes on'}", flush=True)
        night.failed = begun
        nights.write(night)
        this = Run.open(_recipe(run.recipe, night))
        recipe_file(this, night)
        cluster = partial(connected, this.recipe.ray, dashboard=True)
        go_through(STAGES, this, night, nights, cluster)
        night.ended_at = now()
        nights.write(night)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        ours = cause_of(error, *written_to(this.recipe))
        night.failed = (night.failed or begun) | {
            "error": str(ours or f"{type(error).__name__}: {error}")
        }
        with suppress(Exception):  # a full disk, a store that is away: the receiver is told still
            night.verdict = verdict_of(this, night)
            if night.recipe:
                nights.write(night)
                page.execute(this)
        _tell(webhook, this, night)
        raise
    _tell(webhook, this, night)
    if night.refused is not None:
        raise GateRefused(
            night.refused, where=this.registry.root,
            fix="the night is over, and the champion stays; --force of `recsys promote` overrules",
        )  # fmt: skip
    return nights.file(night.day)


def _night(run: Run, day: dt.date | None, again: bool) -> tuple[Night, bool]:
    """The night of a day as far as it has come, and whether it begins now."""
    date = day or _today()
    recipe = recipe_of(run.recipe, date, _today()).fingerprint(*DECISIVE)
    found = Nights(run.recipe.shared).read(date.isoformat())
    # What was done under another recipe is not what this one asks for.
    if found is not None and not again and found.recipe == recipe:
        return found, False
    champion = champion_of(run)
    night = Night(date.isoformat(), recipe, now())
    if champion is not None:
        theirs = champion.recipe.model_copy(update={"tune": run.recipe.tune})
        night.settings, night.champion_before = searched(theirs), champion.version
    return night, True


def _recipe(recipe: Recipe, night: Night) -> Recipe:
    """The recipe of a night: its cuts, and what a search found for the champion."""
    return with_found(recipe_of(recipe, night.date, _today()), night.settings)


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


def _tell(webhook: WebhookSender, run: Run, night: Night) -> None:
    """Tell the receiver; where that fails, the night is what it is."""
    try:
        why = webhook.send(kind_of(night), notice_of(run, night))
    except RaycommendError as error:  # the registry, the report
        why = str(error)
    if why is not None:
        print(f"warning: the webhook was not told: {why}", file=sys.stderr, flush=True)


def report(run: Run) -> list[str]:
    """How the night went that was begun last."""
    night = max(Nights(run.recipe.shared).every(), key=lambda each: each.started_at)
    took = ", ".join(f"{name} {seconds:.0f}" for name, seconds in night.seconds.items())
    way = night.way["kind"] if night.way else "no"
    return [f"night of {night.day}, {way} training: {night.verdict}", f"seconds: {took}"]


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("nightly")
