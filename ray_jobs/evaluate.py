"""A bundle and baselines -> `report.json`: the test window, the whole catalogue, every basket.

python -m ray_jobs.evaluate --config recipes/demo.yaml
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ray_jobs.common.cluster import connected
from ray_jobs.common.texts import ensure_store
from ray_jobs.embed import BUNDLE_DIR
from recsys.artifacts.bundle import Bundle
from recsys.config import Recipe, target_codes
from recsys.errors import DataError, RecipeError
from recsys.evaluation.baselines import TrainingLog, fit_baselines
from recsys.evaluation.gate import beats, comparison
from recsys.evaluation.report import COLUMNS, PROTOCOL, answer, head_items, summarise, table
from recsys.preparation.prepared import Prepared
from recsys.recommender import scorer_on
from recsys.schema import Col
from recsys.storage.outputs import whole_file, write_json
from recsys.text.text_store import TextStore
from recsys.training.pretraining.adapted import adapted
from recsys.training.validation import tie_order

REPORT_FILE, ROWS_FILE = "report.json", "evaluation_rows.parquet"
OURS, METRIC = "raycommend", "ndcg@10"


def plan(recipe: Recipe) -> list[str]:
    """What a run would do."""
    counts = Prepared.open(recipe.root).summary["counts"]
    baskets = min(counts["test_baskets"], recipe.evaluate.max_rows or counts["test_baskets"])
    return [
        f"rank {counts['items']:,} items for {baskets:,} baskets",
        f"with {Bundle.open(recipe.root / BUNDLE_DIR, verify=False).version} and "
        f"{', '.join(recipe.evaluate.baselines)}",
        f"write {recipe.root / REPORT_FILE}",
    ]


def run(recipe: Recipe) -> Path:
    """Evaluate the run's bundle beside the baselines."""
    prepared = Prepared.of(recipe)
    bundle = Bundle.open(recipe.root / BUNDLE_DIR)
    if bundle.meta["data_fingerprint"] != prepared.summary["data_fingerprint"]:
        raise DataError(
            "the bundle was trained on other data than are prepared now, and may have seen the "
            "test window",
            where=bundle.folder, field="data_fingerprint", value=bundle.meta["data_fingerprint"],
            fix="run `recsys tune` and `recsys embed` again",
        )  # fmt: skip
    with connected(recipe.ray):
        store = ensure_store(adapted(recipe, prepared), prepared)
        models = {
            OURS: scorer_on(bundle, prepared, "test", store.content_similarity),
            **_baselines(recipe, prepared, store),
        }
        users, baskets, values = answer_all(recipe, prepared, models)
    rows = summarise(values, users, num_bootstrap=recipe.evaluate.num_bootstrap, seed=recipe.seed)
    best = _best_baseline(rows)
    verdict = None
    if best is not None:
        column = COLUMNS.index(("all", METRIC))
        verdict = beats(
            values[OURS][:, column], values[best][:, column], users,
            0.95, recipe.evaluate.num_bootstrap, recipe.seed,
        )  # fmt: skip
    metric = COLUMNS.index(("all", METRIC))
    columns = {Col.user: users, "basket": baskets, "bundle": [bundle.version] * len(users)}
    columns |= {f"{name}:{METRIC}": values[name][:, metric] for name in values}
    with whole_file(recipe.root / ROWS_FILE) as aside:
        pl.DataFrame(columns).write_parquet(aside)
    # The report last: who finds it takes the rows for whole.
    write_json(
        recipe.root / REPORT_FILE,
        {
            "dataset": recipe.name,
            "protocol": PROTOCOL,
            "num_questions": len(users),
            "num_items": prepared.catalogue.num_items,
            "bundle": bundle.version,
            "recipe": bundle.recipe.resolved(),
            "recipe_hash": bundle.recipe.fingerprint(),
            "data_fingerprint": prepared.summary["data_fingerprint"],
            "best_baseline": best,
            "gain_over_best_baseline": verdict.as_json() if verdict else None,
            "rows": rows,
        },
    )
    own = {f"{r['slice']}/{r['metric']}": r["value"] for r in rows if r["model"] == OURS}
    bundle.note_metrics(own)
    return recipe.root / REPORT_FILE


def _baselines(recipe: Recipe, prepared: Prepared, store: TextStore) -> dict[str, Any]:
    """The baselines, fitted on everything before the test window."""
    log = TrainingLog(
        prepared.users().before(prepared.summary["cuts_us"]["test"]),
        prepared.catalogue.num_items,
        target_codes(recipe),
        store.vectors,
        prepared.catalogue.text_rows,
        prepared.daily_counts(),
        recipe.data.count_every_days,
    )
    return fit_baselines(recipe.evaluate.baselines, log)


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
            _Judge,
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


class _Judge:
    """Answers one shard's questions with every model."""

    def __init__(self, recipe: Recipe, prepared: Path, shared: list[Any]) -> None:
        import ray
        import torch

        torch.set_num_threads(1)
        self._recipe, self._prepared = recipe, Prepared(prepared)
        self._models = ray.get(shared[0])
        stats = self._prepared.stats("test")
        self._new_item, self._head_item = stats.num_events == 0, head_items(stats.num_targets)
        self._order = tie_order(len(self._new_item), recipe.seed)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        users, questions = self._prepared.questions(
            "test",
            target_codes(self._recipe),
            shards=[Path(str(batch["shard"][0]))],
            most=self._recipe.evaluate.max_rows,
            seed=self._recipe.seed,
        )
        first_us = users.timestamps[users.offsets[:-1]]
        known = first_us[questions.user_index] < self._prepared.summary["cuts_us"]["test"]
        values: dict[str, list[np.ndarray]] = {name: [] for name in self._models}
        size = self._recipe.evaluate.batch_size
        for start in range(0, len(questions), size):
            part = questions[start : start + size]
            for name, model in self._models.items():
                values[name].append(
                    answer(
                        model, part, new_item=self._new_item, head_item=self._head_item,
                        known_user=known[start : start + size], tie_order=self._order,
                    )
                )  # fmt: skip
        empty = np.zeros((0, len(COLUMNS)), dtype=np.float32)
        return {
            "user": np.array(
                [users.user_ids[index] for index in questions.user_index], dtype=object
            ),
            "basket": questions.baskets,
            **{name: np.concatenate([empty, *parts]) for name, parts in values.items()},
        }


def _best_baseline(rows: list[dict[str, Any]]) -> str | None:
    values = {
        row["model"]: row["value"]
        for row in rows
        if row["model"] != OURS and (row["slice"], row["metric"]) == ("all", METRIC)
    }
    return max(values, key=lambda name: values[name]) if values else None


def report(recipe: Recipe) -> list[str]:
    """The tables of the report."""
    data = json.loads((recipe.root / REPORT_FILE).read_text())
    lines = [f"{data['num_questions']:,} baskets, {data['num_items']:,} items each"]
    for slice_ in ("all", "first_time", "new_item", "new_user"):
        if any(row["slice"] == slice_ for row in data["rows"]):
            lines += [
                "",
                f"slice: {slice_}",
                *table(data["rows"], (METRIC, "recall@50", "auc"), slice_),
            ]
    gain = data["gain_over_best_baseline"]
    if gain:
        told = comparison(gain) + (" (paired, users resampled)" if gain["judged"] else "")
        lines += ["", f"{METRIC} over {data['best_baseline']}: {told}"]
    return lines


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("evaluate")
