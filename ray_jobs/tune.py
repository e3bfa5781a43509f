"""Search the recipe's space: Ray Tune over Ray Train, pruned after every epoch.

    python -m ray_jobs.tune --config recipes/demo.yaml

A trial is a function that builds a trainer and fits it; its epochs reach Tune through
`TuneReportCallback`, so that a scheduler can stop it. A search that was interrupted goes on when
started again under the same recipe. The winner's own checkpoint goes on to `embed`. The outcome
heads are fitted at the end, as in `train`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ray_jobs.common.choosing import choose
from ray_jobs.common.cluster import connected
from ray_jobs.common.kept import Checkpoints
from ray_jobs.common.outcome_fit import fit_outcomes, outcome_steps
from ray_jobs.common.texts import ensure_store
from ray_jobs.searching.drawing import check_installed
from ray_jobs.searching.interrupt import saved_when_interrupted
from ray_jobs.searching.room import Room, planned
from ray_jobs.searching.trials import all_failed, told, trial_table
from ray_jobs.searching.tuner import search
from recsys.artifacts.run import Run
from recsys.artifacts.trials import trials_frame, write_trials
from recsys.config import check_space, with_settings
from recsys.evaluation.report import METRIC
from recsys.reporting.trials_page import NEEDS_PLOTLY, can_draw, write_page
from recsys.tracking import tracker_of

#: How trials that lag end, in words.
SCHEDULERS = {
    "asha": "ASHA goes on with one in {reduction_factor} after epoch {grace_epochs} and later",
    "median": "those below the median end after epoch {grace_epochs} or later",
    "none": "none is stopped early",
}


def plan(run: Run) -> list[str]:
    """What a run would do."""
    check_settings(run)
    run.check_trainable()
    return steps(run)


def check_settings(run: Run) -> None:
    """Refuse what could not be searched or told, whatever is prepared.

    Raises:
        RecipeError: no trial could be drawn, or a library is missing.
        RaycommendError: the tracker does not answer.
    """
    check_space(run.recipe, run.recipe.name)
    check_installed(run.recipe)
    tracker_of(run.recipe).check()


def steps(run: Run) -> list[str]:
    """What a run does, whatever is prepared now."""
    tune = run.recipe.tune
    budget = f", in at most {tune.time_budget_s:g} s" if tune.time_budget_s else ""
    return [
        f"read {run.prepared_folder}",
        f"run {tune.num_trials} trials of at most {run.recipe.train.epochs} epochs{budget}, "
        f"{planned(run.recipe)} at once",
        *(f"draw {name} ({tune.search}): {each}" for name, each in tune.space.items()),
        f"stop trials ({tune.scheduler}): {SCHEDULERS[tune.scheduler].format(**vars(tune))}",
        f"write {run.winner_file}, {run.trials_file.name} and {run.trials_page.name}",
        *outcome_steps(run),
    ]


def execute(run: Run) -> Path:
    """Search, and name the best trial's best checkpoint the winner."""
    check_settings(run)
    run.check_trainable()
    run = run.trained
    with connected(run.recipe.ray, dashboard=True):
        concurrent = Room(run.recipe).concurrent()
        ensure_store(run)
        with saved_when_interrupted():
            folder, results = search(run, concurrent)
        trials = trial_table(run.recipe, results, folder)
        finished = [trial for trial in trials if trial[METRIC] is not None]
        if not finished:
            raise all_failed(trials, folder)
        best = finished[0]
        checkpoint, metrics = Checkpoints(Path(best["path"]), run.recipe.shared).best(METRIC)
        chosen = run.with_recipe(with_settings(run.recipe, best["settings"]))
        _write_trials(run, trials)
        for trial in trials:
            del trial["curve"]
        choose(chosen, checkpoint, metrics, trials)
        fit_outcomes(run)
    return run.winner_file


def _write_trials(run: Run, trials: list[dict[str, Any]]) -> None:
    """Write all epochs of all trials, and the page that shows them."""
    write_trials(run.trials_file, trials)
    run.recipe.shared.hand_in(run.trials_file)
    if can_draw():
        write_page(run.trials_page, run.recipe, trials_frame(trials))
        run.recipe.shared.hand_in(run.trials_page)


def report(run: Run) -> list[str]:
    """The table of trials."""
    trials = json.loads(run.winner_file.read_text())["trials"]
    names = list(trials[0]["settings"])
    rows = [["trial", *names, "epochs", METRIC, ""]]
    for number, trial in enumerate(trials):
        value = trial["status"] if trial[METRIC] is None else f"{trial[METRIC]:.4f}"
        mark = ["<- winner"] * (number == 0)
        mark += [f"({trial['reason']})"] if trial["reason"] else []
        settings = [told(trial["settings"][name]) for name in names]
        rows.append([trial["trial"], *settings, str(trial["epochs"]), value, "  ".join(mark)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [] if can_draw() else [NEEDS_PLOTLY]
    return lines + [
        "  ".join(
            cell.ljust(width) if place in (0, len(widths) - 1) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("tune")
