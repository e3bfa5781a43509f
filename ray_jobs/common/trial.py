"""One trial of a search: a whole training under a recipe with the trial's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray_jobs.common.board import the_board, trained_by_others
from ray_jobs.common.giving_up import told_in_text
from ray_jobs.common.kept import Checkpoints, run_folder
from ray_jobs.common.work import Training, is_done
from recsys.config import recipe_from_dict, with_settings


def trial(config: dict[str, Any], *, recipe: dict[str, Any], search: str) -> None:
    """One trial: a training that a group of workers takes from the search's board.

    Args:
        config: the trial's settings by dotted names.
        recipe: of the search, resolved.
        search: folder of the search.
    """
    from ray import tune

    chosen = with_settings(recipe_from_dict(recipe), config)
    folder = run_folder(Path(search), tune.get_context().get_trial_id(), config)
    checkpoints = Checkpoints(folder, chosen.shared)
    is_told = False
    if not is_done(checkpoints.curve(), chosen):
        with told_in_text():
            training = Training(chosen.resolved(), str(folder))
            for point in trained_by_others(the_board(), training):
                tune.report(point)
                is_told = True
    if not is_told and (curve := checkpoints.curve()):
        # It had all its epochs when the search, or its workers, were interrupted. Tune takes no
        # trial without a metric.
        tune.report(curve[-1])
