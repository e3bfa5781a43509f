"""A checkpoint -> a bundle: every distinct text encoded on Ray Data actors, item vectors, index.

python -m ray_jobs.embed --config recipes/demo.yaml
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import torch

from ray_jobs.common.cluster import connected
from ray_jobs.common.outcome_fit import fitted_heads
from ray_jobs.common.tasks import tasks_on
from ray_jobs.common.texts import ensure_store, text_vectors
from recsys.arrays import Float32s
from recsys.artifacts.bundle import ID_ROW, STANDARD_PRICE, Bundle
from recsys.artifacts.bundle_writing import write_bundle
from recsys.artifacts.checkpoint import load_model
from recsys.artifacts.progress import load_progress
from recsys.artifacts.run import Run
from recsys.config import Recipe, target_codes
from recsys.data.histories import Histories
from recsys.drift.reference import Reference
from recsys.features.side_features import PriceScale, item_features
from recsys.model.item_encoder import NO_ID
from recsys.model.ranking_head import ScoringHead
from recsys.outcome_heads.served import ServedHeads
from recsys.preparation.prepared import Prepared
from recsys.ranking.index import Index
from recsys.ranking.scorer import Scorer
from recsys.ranking.top_k import top_k
from recsys.text.text_store import TextStore
from recsys.tracking import tracker_of
from recsys.training.build import build_two_tower

#: Users whose lists an index is settled on, and the scores of lists learned from.
NUM_QUERIES = 256


def plan(run: Run) -> list[str]:
    """What a run would do."""
    return [f"encode the catalogue with {run.winner.checkpoint}", f"write {run.bundle_folder}"]


def execute(run: Run) -> Path:
    """Encode the catalogue with the winner and write the bundle."""
    winner = run.winner
    chosen = run.with_recipe(winner.recipe)
    with connected(run.recipe.ray):
        store = ensure_store(chosen)
        vectors = text_vectors(chosen, winner.checkpoint).vectors
        with tasks_on(run.recipe) as run_tasks:
            reference = Reference.measure(run.recipe, run.prepared, run_tasks)
    with run.recipe.shared.whole(run.bundle_folder) as out:
        assemble(
            out, chosen.recipe, run.prepared, winner.checkpoint, vectors, store,
            searched=winner.searched, started_from=winner.started_from, reference=reference,
            outcomes=fitted_heads(run),
        )  # fmt: skip
    tracker_of(run.recipe).bundle(run)
    return run.bundle_folder


def assemble(
    target: Path,
    recipe: Recipe,
    prepared: Prepared,
    checkpoint: Path,
    vectors: np.ndarray,
    store: TextStore,
    *,
    searched: bool = False,
    started_from: str | None = None,
    reference: Reference | None = None,
    outcomes: ServedHeads | None = None,
) -> Bundle:
    """Write the bundle of a checkpoint, with popularity and relations as of the end of the log.

    Where a search chose the recipe's settings, or training began from a bundle, it says so. With a
    reference of the log, it gets that and its own scores. Outcome heads, if there are any, learn
    what the scores of this model are like.
    """
    model, item_rows = build_two_tower(recipe, prepared, load_progress(checkpoint).until)
    head = ScoringHead(recipe.model.temperature)
    progress = load_model(checkpoint, model, head)
    model.language.merge_adapters()
    catalogue, stats = prepared.catalogue, prepared.stats("end")
    items = model.item_vectors(torch.from_numpy(np.array(vectors)), catalogue.text_rows, item_rows)
    scale = PriceScale.fit(catalogue.prices)
    standard = scale.standard(catalogue.prices)
    scorer = Scorer.build(
        model.users, head, items, item_features(stats, standard), standard,
        prepared.relations("end", store.content_similarity),
        target_codes(recipe), recipe.model.max_history,
    )  # fmt: skip
    item_part = np.asarray(scorer.item_part)
    index = None
    if recipe.embed.index_above is not None and len(items) > recipe.embed.index_above:
        print(f"building an index of {len(items):,} items", flush=True)
        queries = scorer.user_parts(_recent_users(prepared)).numpy()
        index = Index.build(item_part, queries, seed=recipe.seed)
    if reference is not None:
        reference = reference.with_scores(scorer, prepared, recipe.seed)
    if outcomes is not None:
        shown = list_scores(scorer, _recent_users(prepared), recipe.serve.default_k)
        outcomes = outcomes.with_scores(shown)
    id_rows = pl.Series(item_rows[:, 0].numpy()).replace(NO_ID, None)
    table = catalogue.items.with_columns(
        id_rows.alias(ID_ROW), **vars(stats), **{STANDARD_PRICE: standard}
    )
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    weights |= {f"head.{name}": value.contiguous() for name, value in head.state_dict().items()}
    return write_bundle(
        target,
        recipe=recipe,
        weights=weights,
        items=table,
        vectors=items.numpy(),
        item_part=item_part,
        relations=scorer.relations,
        facts={
            "data_fingerprint": prepared.summary["data_fingerprint"],
            "catalogue_fingerprint": prepared.summary["catalogue_fingerprint"],
            "key_check": prepared.summary["key_check"],
            "text_dim": model.language.dim,
            "price_scale": [scale.mean, scale.deviation],
            "trained_epochs": progress.epoch,
            "searched": searched,
            "started_from": started_from,
            "language_model": prepared.summary["language_model"],
        },
        index=index,
        reference=None if reference is None else reference.as_json(),
        outcomes=outcomes,
    )


def list_scores(scorer: Scorer, users: Histories, k: int) -> Float32s:
    """Scores of what lists of k items would show these users, as exposures tell them of others."""
    lists = (top_k(scorer.scores(users[at : at + 1])[0], k) for at in range(len(users)))
    return np.concatenate([scores for _, scores in lists])


def _recent_users(prepared: Prepared) -> Histories:
    """The histories of some users, as of the end of the log: what requests will ask with."""
    users = prepared.users(prepared.shards[:1])
    now = int(users.timestamps.max()) + 1
    return users.as_queries(now)[:NUM_QUERIES]


def report(run: Run) -> list[str]:
    """What the bundle is."""
    bundle = run.bundle(verify=False)
    size = sum(path.stat().st_size for path in bundle.folder.rglob("*") if path.is_file())
    lines = [f"bundle {bundle.version}: {bundle.meta['num_items']:,} items, {size / 1e6:.0f} MB"]
    lines += bundle.index.describe() if bundle.index else []
    return lines if bundle.has_outcomes else [*lines, "without outcome heads"]


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("embed")
