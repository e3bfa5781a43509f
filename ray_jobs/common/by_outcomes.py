"""Challenger and champion by what came of what was shown, for the gate: arms, or logged lists."""

from __future__ import annotations

import math

from ray_jobs.common.judged_lists import exploring_policy, judge_lists, logged_lists
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.lineage import check_unseen
from recsys.artifacts.run import Run
from recsys.errors import NotJudged
from recsys.evaluation.gate import Verdict
from recsys.outcomes.evidence import OutcomeEvidence, of_arms, of_lists
from recsys.outcomes.measuring import OUTCOMES_FILE
from recsys.storage.reading import read_json


def by_arms(run: Run, challenger: str, champion: str) -> OutcomeEvidence | None:
    """What a test of two arms says that answered with these versions, if there was one."""
    settings, path = run.recipe.promote, run.root / OUTCOMES_FILE
    run.recipe.shared.bring_files([path])
    if not path.is_file():
        return None
    told = read_json(path, "run `recsys outcomes` again", {"comparisons": list})
    return of_arms(told, challenger, champion, settings.metric, settings.confidence)


def by_lists(run: Run, challenger: Bundle, champion: Bundle) -> OutcomeEvidence:
    """What both would have earned on the logged lists, drawn as the exploring arm draws them.

    Raises:
        DataError: one of them has learned from these lists, or there are no exposures.
    """
    settings = run.recipe.promote
    both = {"challenger": challenger, "champion": champion}
    for bundle in both.values():
        check_unseen(run.recipe, bundle)
    try:
        policy = exploring_policy(run.recipe)
        policies = {name: (bundle, policy) for name, bundle in both.items()}
        judged, _ = judge_lists(run, logged_lists(run), policies)
    except NotJudged as error:
        nothing = Verdict(math.nan, math.nan, math.nan)
        return OutcomeEvidence("the logged lists", nothing, math.nan, (error.problem,))
    return of_lists(judged, "challenger", "champion", settings.metric, settings.confidence)


def check_outcomes(run: Run, challenger: Bundle, champion: str) -> None:
    """Refuse what `by_arms` and `by_lists` would, without a cluster.

    Raises:
        DataError: see `by_lists`.
    """
    if by_arms(run, challenger.version, champion) is None:
        for bundle in (challenger, Bundle.open(run.registry.path(champion), verify=False)):
            check_unseen(run.recipe, bundle)
        logged_lists(run)
