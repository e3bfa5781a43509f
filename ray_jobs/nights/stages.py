"""The stages of a night: a job each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import yaml

from ray_jobs import (
    compact,
    drift,
    embed,
    evaluate,
    exposures,
    outcomes,
    prepare,
    pretrain,
    promote,
    report,
    train,
)
from ray_jobs.nights.handover import hand_over
from ray_jobs.nights.notice import verdict_of
from recsys.artifacts.bundle import REFERENCE, Bundle
from recsys.artifacts.registry import CHAMPION
from recsys.artifacts.run import Run
from recsys.artifacts.warm_start import start_bundle, warm_recipe
from recsys.config import changed_keys
from recsys.data.feedback import finished
from recsys.drift.findings import asks_full_run
from recsys.errors import GateRefused, RaycommendError
from recsys.nightly import WARM, Night, Nights, NothingToDo, Stage, Way, way_of
from recsys.outcomes.joining import EXPOSURES_DIR, read_summary
from recsys.schema import TOLD_BY
from recsys.storage.outputs import whole_file

RECIPE_FILE = "recipe.yaml"
_IMPRESSION = "impression"


def _compact(run: Run, _: Night) -> Iterable[str]:
    if (missing := compact.missing_store(run)) is not None:
        raise NothingToDo(missing.problem)
    compact.execute(run)
    return compact.report(run)


def _prepare(run: Run, _: Night) -> Iterable[str]:
    prepare.execute(run)
    return prepare.report(run)


def _exposures(run: Run, _: Night) -> Iterable[str]:
    names = run.recipe.data.event_types
    types = {names.get(name, name) for name in run.prepared.summary["event_types"]}
    shown = _IMPRESSION in types or finished(run.feedback.impressions)
    here = run.feedback_mirror is None  # else it fetches the lists itself
    if here and not shown and not (run.root / EXPOSURES_DIR).exists():
        raise NothingToDo("nobody logged what was shown: no list, no event `impression`")
    exposures.execute(run)
    return exposures.report(run)


def _drift(run: Run, night: Night) -> Iterable[str]:
    champion = champion_of(run)
    if champion is None:
        raise NothingToDo("there is no champion")
    if REFERENCE not in champion.meta["files"]:
        raise NothingToDo(f"{champion.version} has no reference: an earlier release wrote it")
    drift.execute(run)
    night.drift = asks_full_run(run)
    return drift.report(run)


def _train(run: Run, night: Night) -> Iterable[str]:
    if night.way is None:
        night.way = asdict(decide(run, night))
    way = Way(**night.way)
    print(f"    {way.kind}: {way.why}", flush=True)
    if run.recipe.pretrain.epochs:
        pretrain.execute(run)
    train.execute(run, start_from=CHAMPION if way.kind == WARM else None)
    return train.report(run)


def decide(run: Run, night: Night) -> Way:
    """Whether the night trains from nothing, see `way_of`."""
    champion = champion_of(run)
    return way_of(
        run.recipe, night.date,
        champion=None if champion is None else champion.version,
        refusal=None if champion is None else _refusal(run, champion),
        last_full=Nights(run.recipe.shared).last_full(before=night.day),
        drift=night.drift,
    )  # fmt: skip


def _refusal(run: Run, champion: Bundle) -> str | None:
    """Why training cannot start from the champion's weights; None: it can."""
    if run.recipe.pretrain.epochs:
        return "pretrain.epochs adapts the language model to each log"
    changed = changed_keys(run.recipe, champion.recipe)
    if changed := [key for key in changed if not key.startswith("tune.")]:
        return f"the recipe was changed since {champion.version}: {', '.join(changed)}"
    try:
        warm_recipe(run.recipe, start_bundle(run.recipe, CHAMPION))
    except RaycommendError as error:
        return error.problem
    return None


def champion_of(run: Run) -> Bundle | None:
    """The champion of the run's registry."""
    version = run.registry.champion()
    return None if version is None else Bundle.open(run.registry.path(version), verify=False)


def _embed(run: Run, _: Night) -> Iterable[str]:
    embed.execute(run)
    return embed.report(run)


def _evaluate(run: Run, _: Night) -> Iterable[str]:
    evaluate.execute(run)
    return evaluate.report(run)


def _promote(run: Run, night: Night) -> Iterable[str]:
    try:
        promote.execute(run)
    except GateRefused as refused:
        # The night goes on: the champion that stays is handed over, and everything is told.
        night.refused = refused.problem
        return [str(refused)]
    return promote.report(run)


def _hand_over(run: Run, night: Night) -> Iterable[str]:
    return hand_over(run, recipe_file(run, night))


def recipe_file(run: Run, night: Night) -> Path:
    """Write the recipe of a night: any job can be run by hand under it."""
    path = Nights(run.recipe.shared).file(night.day).with_name(RECIPE_FILE)
    with whole_file(path) as aside:
        aside.write_text(yaml.safe_dump(run.recipe.resolved(), sort_keys=False))
    run.recipe.shared.hand_in(path)
    return path


def _outcomes(run: Run, _: Night) -> Iterable[str]:
    folder = run.root / EXPOSURES_DIR
    run.recipe.shared.bring(folder)
    if not folder.exists() or not read_summary(folder)["counts"]["exposures"]:
        raise NothingToDo("there are no exposures")
    path = outcomes.execute(run, of=list(TOLD_BY))
    return [f"the rates lie in {path}"]


def _page(run: Run, night: Night) -> Iterable[str]:
    begun, night.failed = night.failed, None
    night.verdict = verdict_of(run, night)
    Nights(run.recipe.shared).write(night)  # the page tells of the night too
    night.failed = begun
    return [f"the page is {report.execute(run)}"]


#: In this order.
STAGES: tuple[Stage[Run], ...] = (
    Stage("compact", _compact),
    Stage("prepare", _prepare, on_ray=True),
    Stage("exposures", _exposures, on_ray=True),
    Stage("drift", _drift, on_ray=True),
    Stage("train", _train, on_ray=True),
    Stage("embed", _embed, on_ray=True),
    Stage("evaluate", _evaluate, on_ray=True),
    Stage("promote", _promote, on_ray=True),
    Stage("hand over", _hand_over),
    Stage("outcomes", _outcomes),
    Stage("page", _page),
)
