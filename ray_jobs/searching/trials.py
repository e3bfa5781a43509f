"""What became of a search's trials, as their checkpoints tell it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray_jobs.common.giving_up import reason_of
from ray_jobs.common.kept import Checkpoints, run_folder
from ray_jobs.common.work import is_done
from recsys.config import Recipe, with_settings
from recsys.errors import DataError, RaycommendError
from recsys.evaluation.report import METRIC

#: Begin of a trial's name.
TRIAL = "trial-"


def trial_table(recipe: Recipe, results: Any, search: Path) -> list[dict[str, Any]]:
    """The trials, best first; one that finished no epoch has no metric and comes last.

    A trial is judged by the curve that its latest checkpoint holds. What Tune remembers of it
    begins anew where an interrupted search goes on.

    Args:
        recipe: of the search.
        results: Tune's result grid.
        search: folder of the search.
    """
    rows = []
    for result in results:
        settings, name = _settings_of(result, results), Path(result.path).name
        run = run_folder(search, name.removeprefix(TRIAL), settings)
        curve = Checkpoints(run, recipe.shared).curve()
        values = [point[METRIC] for point in curve]
        error = reason_of(result.error)
        status, reason = "failed", error
        if error is None:
            done = is_done(curve, with_settings(recipe, settings))
            status, reason = ("finished", None) if done else ("stopped", _why(recipe, len(curve)))
        rows.append(
            {
                "trial": name,
                "settings": settings,
                "status": status,
                "reason": reason,
                "epochs": len(curve),
                METRIC: max((each for each in values if not math.isnan(each)), default=None),
                "path": str(run) if curve else None,
                "curve": curve,
            }
        )
    return sorted(rows, key=lambda row: (row[METRIC] is None, -(row[METRIC] or 0), row["trial"]))


def _settings_of(result: Any, results: Any) -> dict[str, Any]:
    """A trial's settings: Tune gives them with what the trial told, if it told anything."""
    if result.config is not None:
        return dict(result.config)
    trial_id = Path(result.path).name.removeprefix(TRIAL)
    trials = results._experiment_analysis.trials
    return dict(next(each.config for each in trials if each.trial_id == trial_id))


def _why(recipe: Recipe, epochs: int) -> str:
    """Why a trial that did not fail has not all its epochs."""
    tune = recipe.tune
    causes: list[str] = []
    if tune.scheduler != "none" and epochs >= tune.grace_epochs:
        causes.append(tune.scheduler)
    causes += ["tune.time_budget_s"] if tune.time_budget_s else []
    by = f" by {' or '.join(causes)}" if causes else ""
    return f"stopped{by} after epoch {epochs}" if epochs else f"stopped{by} before its first epoch"


def all_failed(trials: list[dict[str, Any]], folder: Path) -> RaycommendError:
    """The error of a search that has no winner; it tells every trial's reason.

    Args:
        trials: see `trial_table`.
        folder: of the search.
    """
    reasons = [
        f"{each['trial']} ({in_words(each['settings'])}): {each['reason']}" for each in trials
    ]
    return DataError(
        f"no trial finished an epoch: {'; '.join(reasons) or 'none was begun'}", where=folder,
        field="tune.space",
        fix="search lower learning rates or set a lower train.clip_norm if they diverged, give a "
        "longer tune.time_budget_s if they were stopped; else see the trials' error.txt there",
    )  # fmt: skip


def in_words(settings: Mapping[str, Any]) -> str:
    """A trial's settings in one clause."""
    return ", ".join(f"{name} {told(value)}" for name, value in settings.items())


def told(value: object) -> str:
    """A setting's value, a number with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
