"""A bundle enters the registry; it becomes champion only if it beats the incumbent.

python -m ray_jobs.promote --config recipes/demo.yaml
"""

from __future__ import annotations

import numpy as np
import polars as pl

from ray_jobs.common.answering import answer_all
from ray_jobs.common.cluster import connected
from ray_jobs.common.texts import ensure_store
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.lineage import check_challenger
from recsys.artifacts.run import Run
from recsys.errors import DataError, GateRefused
from recsys.evaluation.gate import MIN_USERS, Verdict, beats, not_judged
from recsys.evaluation.report import COLUMNS, METRIC, OURS
from recsys.recommender.loading import scorer_on
from recsys.schema import Col
from recsys.storage.location import Place
from recsys.storage.reading import read_json, read_parquet, reading


def plan(run: Run) -> list[str]:
    """What a run would do."""
    bundle = run.bundle(verify=False)
    check_challenger(run.recipe, bundle)
    registry = run.registry
    num_users = _evaluated(run, bundle)[Col.user].n_unique()
    against = "promote it: there is no champion"
    if num_users < MIN_USERS:
        against += f" ({not_judged(num_users)})"
    incumbent = registry.champion()
    if incumbent == bundle.version:
        against = "leave it champion"
    elif incumbent is not None:
        _check_judged(run, num_users, bundle.version, incumbent)
        against = f"compare it with {incumbent} on {METRIC}"
    return [f"add {bundle.version} to {registry.root}", against]


def execute(run: Run) -> Place:
    """Promote the run's bundle, or refuse.

    Raises:
        BundleError: the registry holds another product's line, or another bundle has become
            champion since the comparison.
        GateRefused: the incumbent is not beaten; the alias stays.
    """
    check_challenger(run.recipe, run.bundle(verify=False))
    bundle = run.bundle()
    ours = _evaluated(run, bundle)
    registry = run.registry
    registry.add(bundle.folder, bundle.version)
    incumbent = registry.champion()
    if incumbent is not None and incumbent != bundle.version:
        _check_judged(run, ours[Col.user].n_unique(), bundle.version, incumbent)
        verdict = compare_with(run, ours, Bundle.open(registry.path(incumbent)))
        if not verdict.better:
            raise GateRefused(
                f"{bundle.version} does not beat {incumbent} on {METRIC}: "
                f"{verdict.difference:+.5f} [{verdict.low:+.5f}, {verdict.high:+.5f}] "
                f"at {run.recipe.promote.confidence:.0%}",
                where=registry.root,
                fix=f"{incumbent} stays champion; the bundle is kept in the registry",
            )
    registry.promote(bundle.version, over=incumbent)
    return registry.place(bundle.version)


def _check_judged(run: Run, num_users: int, challenger: str, incumbent: str) -> None:
    """Refuse to compare on too few users.

    Raises:
        GateRefused: nobody could say which is better.
    """
    if num_users < MIN_USERS:
        raise GateRefused(
            f"{challenger} beside {incumbent} is {not_judged(num_users)}",
            where=run.rows_file,
            fix=f"{incumbent} stays champion; evaluate on more baskets, with an earlier "
            "data.cuts.test or a larger evaluate.max_rows",
        )


def _evaluated(run: Run, bundle: Bundle) -> pl.DataFrame:
    """The bundle's rows of the evaluation."""
    run.bring_results()
    path = run.report_file
    again = "run `recsys evaluate` again"
    if not path.is_file() or read_json(path, again, {"bundle": str})["bundle"] != bundle.version:
        raise DataError(
            "this bundle has not been evaluated", where=path, value=bundle.version,
            fix="run `recsys evaluate` first",
        )  # fmt: skip
    path, ours = run.rows_file, f"{OURS}:{METRIC}"
    rows = read_parquet(path, again, {"bundle": pl.String, Col.user: pl.String})
    with reading(path, again):
        if not rows[ours].is_finite().all() or not rows[ours].is_between(0, 1).all():
            raise ValueError(f"`{ours}` is no {METRIC} everywhere")
    if rows["bundle"].unique().to_list() != [bundle.version]:
        raise DataError(
            "the rows are another bundle's", where=run.rows_file, value=bundle.version,
            fix="run `recsys evaluate` again",
        )  # fmt: skip
    return rows


def compare_with(run: Run, ours: pl.DataFrame, incumbent: Bundle) -> Verdict:
    """Let the incumbent answer the same questions."""
    recipe, prepared = run.recipe, run.matching_prepared()
    cuts = incumbent.recipe.data.cuts
    seen_until = cuts.test if incumbent.recipe.train.retrain else cuts.valid
    if seen_until > recipe.data.cuts.test:
        raise DataError(
            f"{incumbent.version} learned from baskets up to {seen_until:%Y-%m-%d}, some of this "
            "test window: the comparison would flatter it",
            where=run.root, field="data.cuts.test", value=str(recipe.data.cuts.test),
            fix="prepare with cuts that lie later than the incumbent's",
        )  # fmt: skip
    with connected(recipe.ray):
        similar = ensure_store(run.trained).content_similarity
        models = {"incumbent": scorer_on(incumbent, prepared, "test", similar)}
        users, baskets, values = answer_all(recipe, prepared, models)
    same = np.array_equal(users, ours[Col.user].to_numpy()) and np.array_equal(
        baskets, ours["basket"].to_numpy()
    )
    if not same:
        raise DataError(
            "the evaluation was made on other data than is prepared now",
            where=run.rows_file, fix="run `recsys evaluate` again",
        )  # fmt: skip
    return beats(
        ours[f"{OURS}:{METRIC}"].to_numpy(),
        values["incumbent"][:, COLUMNS.index(("all", METRIC))],
        users,
        recipe.promote.confidence,
        recipe.evaluate.num_bootstrap,
        recipe.seed,
    )


def report(run: Run) -> list[str]:
    """Who is champion, and whether that could be judged."""
    bundle = run.bundle(verify=False)
    num_users = _evaluated(run, bundle)[Col.user].n_unique()
    is_champion = bundle.version == run.registry.champion()
    unsure = is_champion and num_users < MIN_USERS
    return [run.registry.describe(), *([not_judged(num_users)] if unsure else [])]


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("promote")
