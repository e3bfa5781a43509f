"""Every model answers every question of the test window, on Ray Data actors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from recsys.config import Recipe, target_codes
from recsys.errors import RecipeError
from recsys.evaluation.judge import Judge, known_users
from recsys.preparation.prepared import Prepared


def answer_all(
    recipe: Recipe, prepared: Prepared, models: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Let every model answer every question, on Ray Data actors; one task a history shard.

    Returns:
        The user [Q] and basket [Q] of each question, and model -> [Q, M] metrics, sorted by user
        and basket.
    """
    import ray
    import ray.data

    shards = prepared.shards
    shared = ray.put(models)
    batches = (
        ray.data.from_items(
            [{"shard": str(path)} for path in shards], override_num_blocks=len(shards)
        )
        .map_batches(
            _ShardAnswers,
            fn_constructor_args=(recipe, prepared.folder, [shared]),
            compute=ray.data.ActorPoolStrategy(size=min(recipe.evaluate.num_actors, len(shards))),
            batch_size=1,
            num_cpus=1,
        )
        .iter_batches(batch_size=None, batch_format="numpy")
    )
    gathered = [batch for batch in batches if len(batch["basket"])]
    if not gathered:
        raise RecipeError(
            "the sample of the test window holds no basket", field="evaluate.max_rows",
            value=recipe.evaluate.max_rows, fix="take a larger one",
        )  # fmt: skip
    users = np.concatenate([batch["user"] for batch in gathered]).astype(str)
    baskets = np.concatenate([batch["basket"] for batch in gathered])
    order = np.lexsort((baskets, users))
    values = {
        name: np.concatenate([np.stack(list(batch[name])) for batch in gathered])[order]
        for name in models
    }
    _check_all_answered(recipe, prepared, len(order))
    return users[order], baskets[order], values


def _check_all_answered(recipe: Recipe, prepared: Prepared, num_answered: int) -> None:
    """Rows out = rows in.

    Ray Data's equal split would drop tails (ray#63285); nothing here splits.
    """
    given = prepared.summary["counts"]["test_baskets"]
    if recipe.evaluate.max_rows is not None and recipe.evaluate.max_rows < given:
        _, sampled = prepared.questions(
            "test", target_codes(recipe), most=recipe.evaluate.max_rows, seed=recipe.seed
        )
        given = len(sampled)
    assert num_answered == given, f"{given} questions were given, {num_answered} were answered"


class _ShardAnswers:
    """Answers one shard's questions with every model."""

    def __init__(self, recipe: Recipe, prepared: Path, shared: list[Any]) -> None:
        import ray
        import torch

        torch.set_num_threads(1)
        recipe.shared.bring(prepared)
        self._recipe, self._prepared = recipe, Prepared(prepared)
        self._models = ray.get(shared[0])
        self._judge = Judge.of(self._prepared.stats("test"), recipe.seed)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        users, questions = self._prepared.questions(
            "test",
            target_codes(self._recipe),
            shards=[Path(str(batch["shard"][0]))],
            most=self._recipe.evaluate.max_rows,
            seed=self._recipe.seed,
        )
        known = known_users(users, questions, self._prepared.summary["cuts_us"]["test"])
        return {
            "user": np.array(
                [users.user_ids[index] for index in questions.user_index], dtype=object
            ),
            "basket": questions.baskets,
            **self._judge.answers(self._models, questions, known, self._recipe.evaluate.batch_size),
        }
