"""A bundle enters the registry; it becomes champion only if the gate lets it.

python -m ray_jobs.promote --config recipes/demo.yaml
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from ray_jobs.common.answering import answer_all
from ray_jobs.common.by_outcomes import by_arms, by_lists, check_outcomes
from ray_jobs.common.cluster import connected
from ray_jobs.common.texts import ensure_store
from recsys.arrays import Float64s
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.lineage import changed_recipe, check_challenger, check_unseen
from recsys.artifacts.run import Run
from recsys.config import differences
from recsys.errors import DataError, GateRefused
from recsys.evaluation.evidence import Evidence, Rule, told
from recsys.evaluation.gate import MIN_USERS, Verdict, beats
from recsys.evaluation.report import COLUMNS, COMPARED, METRIC, OURS
from recsys.recommender.loading import scorer_on
from recsys.reporting.decision import changed_items, decided_on, note_decision
from recsys.reporting.examples import lists_by_user
from recsys.schema import Col
from recsys.storage.location import Place
from recsys.storage.reading import read_json, read_parquet, reading

_COLUMN = f"{OURS}:{METRIC}"


def plan(run: Run, *, version: str | None = None, force: bool = False) -> list[str]:
    """What a run would do."""
    challenger, rows = _challenger(run, version, verify=False)
    registry = run.registry
    first = f"{'take' if version else 'add'} {challenger.version} {'of' if version else 'to'} "
    lines = [first + str(registry.root)]
    champion = registry.champion()
    if champion == challenger.version:
        return [*lines, "leave it champion"]
    evidence = _known(run, challenger, rows, champion)
    _check(run, evidence, force)
    _asked(run, evidence, challenger, rows)
    forced = ["promote it whatever comes of that, and note so in the registry"] if force else []
    return [*lines, *evidence.steps(), *forced]


def execute(run: Run, *, version: str | None = None, force: bool = False) -> Place:
    """Promote the run's bundle, or a version of the registry, or refuse.

    Args:
        run: with an evaluation of the data that are prepared now.
        version: of the registry, which answers the questions of that evaluation; None: the run's
            bundle.
        force: promote it whatever the gate says; the registry remembers.

    Raises:
        BundleError: the registry holds another product's line or no such version, or another bundle
            has become champion since the comparison.
        DataError: nothing was evaluated, or one of the two has learned from the test window.
        GateRefused: the rule is not met, or it is worse than a baseline; the alias stays.
    """
    challenger, rows = _challenger(run, version)
    registry = run.registry
    if version is None:
        registry.add(challenger.folder, challenger.version)
    champion = registry.champion()
    if champion != challenger.version:
        evidence, changes = _known(run, challenger, rows, champion), None
        if force or not evidence.refusals:
            evidence, changes = _compared(run, evidence, challenger, rows)
        if promoted := force or not evidence.refusals:
            registry.promote(challenger.version, over=champion, evidence=evidence.as_json())
        if version is None:
            told = evidence.as_json()
            note_decision(run, challenger.version, told, promoted=promoted, changes=changes)
        _check(run, evidence, force)
    elif version is None and decided_on(run) != challenger.version:
        # An earlier one was ended before it could tell.
        note_decision(
            run, challenger.version, registry.evidence(), promoted=True, changes=None
        )  # fmt: skip
    return registry.place(challenger.version)


def _challenger(
    run: Run, version: str | None, *, verify: bool = True
) -> tuple[Bundle, pl.DataFrame]:
    """The bundle that is to be promoted, and the rows of the evaluation."""
    if version is None:
        check_challenger(run.recipe, run.bundle(verify=False))
        bundle = run.bundle(verify=verify)
        return bundle, _evaluated(run, bundle.version)
    bundle = Bundle.open(run.registry.path(version), verify=verify)
    check_challenger(run.recipe, bundle)
    return bundle, _evaluated(run)


def _evaluated(run: Run, version: str | None = None) -> pl.DataFrame:
    """The rows of the run's evaluation: of this bundle, or of whichever it was."""
    run.bring_results()
    path = run.report_file
    again = "run `recsys evaluate` again"
    bundle = read_json(path, again, {"bundle": str})["bundle"] if path.is_file() else None
    if bundle is None or version not in (None, bundle):
        raise DataError(
            "this bundle has not been evaluated", where=path, value=version or run.recipe.name,
            fix="run `recsys evaluate` first",
        )  # fmt: skip
    path = run.rows_file
    rows = read_parquet(path, again, {"bundle": pl.String, Col.user: pl.String})
    with reading(path, again):
        for name in (_COLUMN, *_baselines(rows)):
            if not rows[name].is_finite().all() or not rows[name].is_between(0, 1).all():
                raise ValueError(f"`{name}` is no {METRIC} everywhere")
    if rows["bundle"].unique().to_list() != [bundle]:
        raise DataError(
            "the rows are another bundle's", where=run.rows_file, value=bundle, fix=again
        )
    return rows


def _baselines(rows: pl.DataFrame) -> list[str]:
    """The columns of the baselines."""
    return [name for name in rows.columns if name.endswith(f":{METRIC}") and name != _COLUMN]


def _metric(rows: pl.DataFrame, column: str) -> Float64s:
    return rows[column].cast(pl.Float64).to_numpy()


def _known(run: Run, challenger: Bundle, rows: pl.DataFrame, champion: str | None) -> Evidence:
    """What is known before any bundle is asked."""
    settings = run.recipe.promote
    best = max(_baselines(rows), key=lambda name: _metric(rows, name).mean(), default=None)
    evidence = Evidence(
        challenger.version, rows[Col.user].n_unique(), settings.confidence, champion,
        baseline=best and best.removesuffix(f":{METRIC}"),
    )  # fmt: skip
    if champion is not None:
        incumbent = Bundle.open(run.registry.path(champion), verify=False)
        rule = Rule.of(settings.rule, settings.margin, changed_recipe(challenger, incumbent))
        evidence = replace(evidence, rule=rule, on=settings.metric)
    if challenger.version == rows["bundle"][0]:
        evidence = _beside_baseline(run, evidence, rows, _metric(rows, _COLUMN))
    return evidence


def _asked(
    run: Run, evidence: Evidence, challenger: Bundle, rows: pl.DataFrame
) -> dict[str, Bundle]:
    """The bundles that have to answer the questions of the evaluation, by version.

    Raises:
        DataError: one has learned from the test window.
    """
    asked = {}
    if challenger.version != rows["bundle"][0]:
        asked[challenger.version] = challenger
    if _answers(evidence) and evidence.champion is not None:
        asked[evidence.champion] = Bundle.open(run.registry.path(evidence.champion))
    for bundle in asked.values():
        check_unseen(run.recipe, bundle)
    if evidence.champion is not None and evidence.on != METRIC:
        check_outcomes(run, challenger, evidence.champion)
    return asked


def _answers(evidence: Evidence) -> bool:
    """Whether the champion answers the questions of the evaluation."""
    return evidence.on == METRIC and evidence.num_users >= MIN_USERS


def _compared(
    run: Run, evidence: Evidence, challenger: Bundle, rows: pl.DataFrame
) -> tuple[Evidence, dict[str, Any] | None]:
    """What is known after the bundles were asked, too, and what is other than the champion's."""
    asked = _asked(run, evidence, challenger, rows)
    if evidence.champion is not None and evidence.on != METRIC:
        evidence = _by_outcomes(run, evidence, challenger, evidence.champion)
    if not asked:
        return evidence, None
    answers = answers_of(run, rows, asked)
    own = answers.get(challenger.version)
    ours = _metric(rows, _COLUMN) if own is None else own.of("all", METRIC)
    evidence = _beside_baseline(run, evidence, rows, ours)
    if evidence.rule is None or evidence.champion not in answers:
        return evidence, None
    champion, incumbent = answers[evidence.champion], asked[evidence.champion]
    theirs = champion.of("all", METRIC)
    verdict = _difference(run, rows, ours, theirs)
    evidence = replace(evidence, over_champion=verdict, bound=evidence.rule.bound(theirs))
    # The rows hold the other metrics of the run's own bundle alone.
    changes = None if own else _changes(run, rows, challenger, incumbent, champion)
    return evidence, changes


def _changes(
    run: Run, rows: pl.DataFrame, challenger: Bundle, champion: Bundle, theirs: Answered
) -> dict[str, Any]:
    """What is other than the champion's: metrics, recipe, items, lists; see docs/formats.md."""
    metrics = []
    for slice_, metric in COMPARED:
        column = f"{OURS}:{slice_}/{metric}"
        if column in rows.columns:  # those of an earlier release have one metric
            ours, other = _metric(rows, column), theirs.of(slice_, metric)
            found = _difference(run, rows, ours, other).as_json()
            metrics.append({"slice": slice_, "metric": metric, **found})
    return {
        "metrics": metrics,
        "recipe": list(differences(champion.recipe.resolved(), challenger.recipe.resolved())),
        "items": changed_items(champion, challenger),
        "lists": theirs.lists,
    }


def _by_outcomes(run: Run, evidence: Evidence, challenger: Bundle, champion: str) -> Evidence:
    """What a test of two arms says; where there was none, what the logged lists do."""
    rule = evidence.rule
    assert rule is not None
    found = by_arms(run, challenger.version, champion)
    if found is None:
        found = by_lists(run, challenger, Bundle.open(run.registry.path(champion)))
    evidence = replace(evidence, source=found.source, doubts=found.doubts)
    if found.doubts:
        return evidence
    bound = rule.bound_of(found.champion)
    return replace(evidence, over_champion=found.verdict, bound=bound)


def _beside_baseline(run: Run, evidence: Evidence, rows: pl.DataFrame, ours: Float64s) -> Evidence:
    if evidence.baseline is None:
        return evidence
    theirs = _metric(rows, f"{evidence.baseline}:{METRIC}")
    return replace(evidence, over_baseline=_difference(run, rows, ours, theirs))


def _difference(run: Run, rows: pl.DataFrame, ours: Float64s, theirs: Float64s) -> Verdict:
    recipe, users = run.recipe, rows[Col.user].to_numpy()
    confidence, num_bootstrap = recipe.promote.confidence, recipe.evaluate.num_bootstrap
    return beats(ours, theirs, users, confidence, num_bootstrap, recipe.seed)


def _check(run: Run, evidence: Evidence, force: bool) -> None:
    """Refuse what something speaks against.

    Raises:
        GateRefused: so it is, and nobody forces it.
    """
    if force or not evidence.refusals:
        return
    stays = f"{evidence.champion} stays champion" if evidence.champion else "there is no champion"
    fix = f"{stays}; the bundle is kept in the registry, and --force promotes it all the same"
    if evidence.on == METRIC and evidence.num_users < MIN_USERS:
        fix = (
            f"{stays}; evaluate on more baskets, with an earlier data.cuts.test or a larger "
            "evaluate.max_rows"
        )
    raise GateRefused("; ".join(evidence.refusals), where=run.registry.root, fix=fix)


@dataclass(frozen=True)
class Answered:
    """What a bundle answered.

    Attributes:
        values: [Q, M] metrics, see `COLUMNS`, in the order of the evaluation's rows.
        lists: ids of items by user, see `lists_by_user`.
    """

    values: Float64s
    lists: dict[str, list[str]]

    def of(self, slice_: str, metric: str) -> Float64s:
        """[Q] a metric of a slice."""
        return self.values[:, COLUMNS.index((slice_, metric))]


def answers_of(run: Run, rows: pl.DataFrame, bundles: dict[str, Bundle]) -> dict[str, Answered]:
    """Let bundles answer the questions of the evaluation, by version.

    Raises:
        DataError: other data are prepared now.
    """
    recipe, prepared = run.recipe, run.matching_prepared()
    with connected(recipe.ray):
        similar = ensure_store(run.trained).content_similarity
        models = {
            version: scorer_on(bundle, prepared, "test", similar)
            for version, bundle in bundles.items()
        }
        users, baskets, values = answer_all(recipe, prepared, models)
    same = np.array_equal(users, rows[Col.user].to_numpy()) and np.array_equal(
        baskets, rows["basket"].to_numpy()
    )
    if not same:
        raise DataError(
            "the evaluation was made on other data than is prepared now",
            where=run.rows_file, fix="run `recsys evaluate` again",
        )  # fmt: skip
    return {
        version: Answered(
            values[version].astype(np.float64), lists_by_user(models[version], prepared, recipe)
        )
        for version in bundles
    }


def report(run: Run) -> list[str]:
    """Who is champion, and what that was decided on."""
    return [run.registry.describe(), *told(run.registry.evidence())]


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("promote")
