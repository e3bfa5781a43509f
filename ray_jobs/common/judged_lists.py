"""Policies judge the logged lists of the test window, on Ray Data; a task a history shard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from ray_jobs.common.cluster import connected
from ray_jobs.common.texts import ensure_store
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.run import Run
from recsys.config import Arm, Recipe, target_codes, weights_of
from recsys.errors import NotJudged
from recsys.outcomes.joining import EXPOSURES_DIR, read_summary
from recsys.outcomes.policy.judging import Judged, Judging
from recsys.outcomes.policy.logged import LoggedLists, Survey
from recsys.preparation.prepared import Prepared
from recsys.ranking.chances import Policy
from recsys.recommender.loading import scorer_on


def logged_lists(run: Run) -> LoggedLists:
    """The lists of the run's test window that was prepared.

    Raises:
        DataError: nothing is prepared under this recipe, or there are no exposures.
    """
    folder, prepared = run.root / EXPOSURES_DIR, run.matching_prepared()
    run.recipe.shared.bring(folder)
    days = tuple(sorted(read_summary(folder)["days"]))
    since, end = prepared.window("test")
    last = prepared.summary["log_us"][1]
    until = last if end is None else min(last, end - 1)
    return LoggedLists(folder, days, since, until, run.recipe.outcomes.places)


def exploring_policy(recipe: Recipe) -> Policy:
    """The policy of the first arm that answers and draws its lists; else the plain order.

    Raises:
        NotJudged: see `policy_of`.
    """
    arms = (arm for arm in recipe.serve.arms if arm.explores and arm.weight)
    return policy_of(recipe, next(arms, None))


def policy_of(recipe: Recipe, arm: Arm | None) -> Policy:
    """How an arm of the recipe makes lists of scores; None: the plain order.

    Raises:
        NotJudged: its lists are ordered by another objective than the scores.
    """
    own = None if arm is None else arm.objective
    asked = [own] if own else [recipe.serve.objective, *recipe.serve.objectives.values()]
    for objective in asked:
        if weights_of(objective).keys() != {"relevance"}:
            raise NotJudged(
                "lists that are ordered by another objective than relevance are not judged",
                where="recipe", field="serve.objective" if own is None else "serve.arms",
                value=objective, fix="judge an arm with `objective: relevance`",
            )  # fmt: skip
    return Policy() if arm is None else Policy(arm.epsilon, arm.temperature)


def judge_lists(
    run: Run, lists: LoggedLists, policies: Mapping[str, tuple[Bundle, Policy]]
) -> tuple[pl.DataFrame, Survey]:
    """Let every policy judge every list.

    Args:
        run: with prepared data.
        lists: of the run.
        policies: by name; the bundles have not learned from the test window.

    Returns:
        The rows of `Judging`, and what became of the lists.

    Raises:
        NotJudged: no list can be judged.
    """
    recipe, prepared = run.recipe, run.matching_prepared()
    survey = lists.survey(recipe.outcomes.max_lists)
    if not len(survey.users):
        told = ", ".join(f"{count:,} {why}" for why, count in survey.counts.items() if count)
        raise NotJudged(
            f"no logged list can be judged: {told or 'there are none'}", where=lists.folder,
            fix="let an arm of serve.arms explore, and run `recsys exposures` and `recsys prepare` "
            "with cuts before its lists",
        )  # fmt: skip
    with connected(recipe.ray):
        similar = ensure_store(run.trained).content_similarity
        judged = {
            name: Judged(scorer_on(bundle, prepared, "test", similar), policy)
            for name, (bundle, policy) in policies.items()
        }
        return _by_shards(recipe, prepared, lists, survey, judged), survey


def judging_of(
    recipe: Recipe,
    prepared: Prepared,
    lists: LoggedLists,
    survey: Survey,
    judged: Mapping[str, Judged],
) -> Judging:
    """What judges, as the recipe's service would answer."""
    owned = target_codes(recipe) if recipe.serve.exclude_owned else []
    return Judging(
        prepared, lists, survey, judged,
        owned_codes=owned, batch_size=recipe.evaluate.batch_size,
    )  # fmt: skip


def _by_shards(
    recipe: Recipe,
    prepared: Prepared,
    lists: LoggedLists,
    survey: Survey,
    judged: Mapping[str, Judged],
) -> pl.DataFrame:
    import ray
    import ray.data

    shards = [*map(str, prepared.shards), ""]
    shared = ray.put((lists, survey, dict(judged)))
    batches = (
        ray.data.from_items([{"shard": path} for path in shards], override_num_blocks=len(shards))
        .map_batches(
            _ShardJudging,
            fn_constructor_args=(recipe, prepared.folder, [shared]),
            compute=ray.data.ActorPoolStrategy(size=min(recipe.evaluate.num_actors, len(shards))),
            batch_size=1,
            num_cpus=1,
        )
        .iter_batches(batch_size=None, batch_format="pyarrow")
    )
    frames = [pl.DataFrame(batch) for batch in batches]
    return pl.concat(frame for frame in frames if frame.height).sort("user_id", maintain_order=True)


class _ShardJudging:
    """Judges the lists of one shard's users; of the empty name those of users in no shard."""

    def __init__(self, recipe: Recipe, prepared: Path, shared: list[Any]) -> None:
        import ray
        import torch

        torch.set_num_threads(1)
        recipe.shared.bring(prepared)
        lists, survey, judged = ray.get(shared[0])
        recipe.shared.bring(lists.folder)
        self._judging = judging_of(recipe, Prepared(prepared), lists, survey, judged)

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        shard = str(batch["shard"][0])
        return self._judging(Path(shard) if shard else None).to_arrow()
