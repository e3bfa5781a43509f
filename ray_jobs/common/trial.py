"""One trial of a search: a whole training under a recipe with the trial's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray_jobs.common.fine_tuning import build_trainer, is_done
from ray_jobs.common.giving_up import told_in_text
from ray_jobs.common.kept import curve_of, run_folder
from recsys.config import recipe_from_dict, with_settings
from recsys.preparation.prepared import Prepared


def trial(
    config: dict[str, Any], *, recipe: dict[str, Any], prepared: str, store: str, storage: str
) -> None:
    """One trial: a whole Ray Train run whose epochs are reported to Tune.

    `config` holds the trial's settings by dotted names.
    """
    from ray import tune
    from ray.tune.integration.ray_train import TuneReportCallback

    chosen = with_settings(recipe_from_dict(recipe), config)
    folder = run_folder(Path(storage), tune.get_context().get_trial_id())
    curve = curve_of(folder)
    if is_done(curve, chosen):
        # It had finished when the search was interrupted. Tune takes no trial without a metric.
        tune.report(curve[-1])
        return
    with told_in_text():
        build_trainer(
            chosen,
            Prepared(Path(prepared)),
            Path(store),
            folder.name,
            folder.parent,
            callbacks=[TuneReportCallback()],
        ).fit()
