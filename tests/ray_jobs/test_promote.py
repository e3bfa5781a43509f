"""The gate as a job, without a cluster: what is refused before the incumbent is asked anything."""

from __future__ import annotations

import json
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from bundles import make_bundle
from object_store import ObjectStore
from tiny import day, tiny_recipe

from ray_jobs import promote, rollback
from ray_jobs.common import by_outcomes
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.registry import Registry
from recsys.artifacts.run import Run
from recsys.config import Recipe, with_settings
from recsys.errors import BundleError, DataError, GateRefused, NotJudged
from recsys.evaluation.gate import MIN_USERS
from recsys.evaluation.report import COLUMNS, COMPARED, METRIC, OURS
from recsys.outcomes.measuring import OUTCOMES_FILE


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return tiny_recipe(tmp_path)


@pytest.fixture
def remote(tmp_path: Path, store: ObjectStore) -> Recipe:
    """With a registry in a store."""
    registry = {"registry": f"{store.uri}/registry/{{name}}"}
    return tiny_recipe(tmp_path, promote=registry, storage={"cache_dir": str(tmp_path / "cache")})


def evaluated(
    recipe: Recipe, *, seed: int, users: int, rows: int, baseline: float | None = None
) -> Bundle:
    """A new bundle in the run's folder, and what `evaluate` leaves beside it."""
    bundle = make_bundle(Run.open(recipe).bundle_folder, recipe, seed=seed)
    frame = pl.DataFrame(
        {
            "user_id": [f"u{n % users}" for n in range(rows)],
            "basket": np.arange(rows),
            "bundle": [bundle.version] * rows,
            f"{OURS}:{METRIC}": np.full(rows, 0.5),
        }
    )
    if baseline is not None:
        beside = {"popularity": 0.1, "personal_frequency": baseline}
        columns = [pl.lit(value).alias(f"{name}:{METRIC}") for name, value in beside.items()]
        frame = frame.with_columns(columns)
    frame.write_parquet(Run.open(recipe).rows_file)
    Run.open(recipe).report_file.write_text(json.dumps({"bundle": bundle.version}))
    return bundle


@pytest.mark.parametrize(("users", "rows"), [(1, 1), (1, 22), (MIN_USERS - 1, 400)])
def test_too_few_users_promote_the_first_and_no_other(
    recipe: Recipe, users: int, rows: int
) -> None:
    registry = Registry.of(recipe)
    first = evaluated(recipe, seed=1, users=users, rows=rows)
    assert "not judged" in promote.plan(Run.open(recipe))[1]
    promote.execute(Run.open(recipe))
    assert registry.champion() == first.version
    champion, unsure = promote.report(Run.open(recipe))
    assert first.version in champion
    have = "1 user has" if users == 1 else f"{users} users have"
    assert unsure.startswith(f"not judged: {have} rows to compare")

    second = evaluated(recipe, seed=2, users=users, rows=rows)
    with pytest.raises(GateRefused, match="not judged"):
        promote.plan(Run.open(recipe))
    with pytest.raises(GateRefused, match=f"{second.version} beside {first.version} is not judged"):
        promote.execute(Run.open(recipe))
    assert registry.champion() == first.version
    assert second.version in registry.versions(), "it is kept"
    # What was promoted may be promoted again.
    evaluated(recipe, seed=1, users=users, rows=rows)
    promote.execute(Run.open(recipe))
    assert len(registry.history()) == 1


def test_with_users_enough_nothing_is_said(recipe: Recipe) -> None:
    evaluated(recipe, seed=1, users=MIN_USERS, rows=50)
    assert promote.plan(Run.open(recipe))[1] == "promote it: there is no champion"
    promote.execute(Run.open(recipe))
    assert len(promote.report(Run.open(recipe))) == 1
    assert promote.plan(Run.open(recipe))[1] == "leave it champion"


def test_a_dry_run_says_which_rule_would_be_applied_and_what_against(recipe: Recipe) -> None:
    first = evaluated(recipe, seed=1, users=MIN_USERS, rows=50)
    promote.execute(Run.open(recipe))
    evaluated(recipe, seed=2, users=MIN_USERS, rows=50, baseline=0.4)
    compare, baseline = promote.plan(Run.open(recipe))[1:]
    assert compare == (
        f"compare it with {first.version} on ndcg@10 by the rule not_worse (a refresh: the "
        "champion's recipe but for dates and places): the 95% interval must lie above -2.0% of "
        "the champion's"
    )
    assert baseline == "refuse it if it is surely worse than personal_frequency, the best baseline"
    deeper = with_settings(recipe, {"model.num_layers": 2})
    evaluated(deeper, seed=2, users=MIN_USERS, rows=50)
    (compare,) = promote.plan(Run.open(deeper))[1:]
    assert compare.endswith(
        "by the rule better (the recipe was changed: model.num_layers): the 95% interval must lie "
        "above zero"
    )
    assert promote.plan(Run.open(deeper), force=True)[-1].startswith("promote it whatever")


def test_no_bundle_below_a_baseline_becomes_champion_unless_it_is_forced(recipe: Recipe) -> None:
    """Not even the first; and by whichever way it comes."""
    registry, run = Registry.of(recipe), Run.open(recipe)
    first = evaluated(recipe, seed=1, users=MIN_USERS, rows=50, baseline=0.6)
    for use in (promote.execute, promote.plan, partial(promote.execute, version=first.version)):
        with pytest.raises(GateRefused, match="worse than personal_frequency.*--force") as refused:
            use(run)
        assert "there is no champion" in refused.value.fix
        registry.add(first.folder, first.version)
    assert registry.champion() is None and registry.history() == []
    promote.execute(run, force=True)
    (move,) = registry.history()
    assert (move["version"], move["evidence"]["forced"]) == (first.version, True)
    assert move["evidence"]["over_baseline"]["high"] == pytest.approx(-0.1)
    told = promote.report(run)
    assert told[1:] == [
        "over personal_frequency, the best baseline: -0.1000 [-0.1000, -0.1000]",
        f"forced, although {first.version} is worse than personal_frequency, the best baseline, on "
        "ndcg@10: -0.10000 [-0.10000, -0.10000] at 95%",
    ]
    assert rollback.report(run) == told


def test_a_bundle_as_good_as_the_best_baseline_becomes_champion(recipe: Recipe) -> None:
    first = evaluated(recipe, seed=1, users=MIN_USERS, rows=50, baseline=0.5)
    promote.execute(Run.open(recipe), force=True)
    (move,) = Registry.of(recipe).history()
    assert (move["version"], move["evidence"]["forced"]) == (first.version, False)


def test_a_version_is_one_of_the_registry(recipe: Recipe) -> None:
    first = evaluated(recipe, seed=1, users=MIN_USERS, rows=50)
    for use in (promote.execute, promote.plan):
        with pytest.raises(BundleError, match="no such version"):
            use(Run.open(recipe), version=first.version)
    place = Registry.of(recipe).add(first.folder, first.version)
    taken = promote.plan(Run.open(recipe), version=first.version)
    assert taken[0] == f"take {first.version} of {Registry.of(recipe).root}"
    assert promote.execute(Run.open(recipe), version=first.version) == place
    assert Registry.of(recipe).champion() == first.version


def test_a_dry_run_says_that_nothing_was_evaluated(recipe: Recipe) -> None:
    make_bundle(Run.open(recipe).bundle_folder, recipe, seed=1)
    with pytest.raises(DataError, match="not been evaluated"):
        promote.plan(Run.open(recipe))


def test_who_has_seen_the_test_window_is_no_yardstick_and_no_challenger(
    recipe: Recipe, tmp_path: Path
) -> None:
    """Nor does force change that."""
    cuts = {"head": day(70), "valid": day(80), "test": day(85)}
    later = tiny_recipe(tmp_path, data={"cuts": cuts})
    seen = evaluated(later, seed=1, users=MIN_USERS, rows=50)
    registry, run = Registry.of(recipe), Run.open(recipe)
    registry.add(seen.folder, seen.version)
    own = evaluated(recipe, seed=2, users=MIN_USERS, rows=50)
    for use, force in product((promote.plan, promote.execute), (False, True)):
        with pytest.raises(DataError, match=f"{seen.version} learned .* would flatter it"):
            use(run, version=seen.version, force=force)
    registry.promote(seen.version)
    for use, force in product((promote.plan, promote.execute), (False, True)):
        with pytest.raises(DataError, match=f"{seen.version} learned .* would flatter it"):
            use(run, force=force)
    assert registry.champion() == seen.version and own.version in registry.versions()


def test_a_registry_in_a_store_is_promoted_to(remote: Recipe, store: ObjectStore) -> None:
    run, registry = Run.open(remote), Registry.of(remote)
    first = evaluated(remote, seed=1, users=1, rows=1)
    where = f"{store.uri}/registry/{remote.name}"
    assert promote.plan(run)[0] == f"add {first.version} to {where}"
    assert str(promote.execute(run)) == f"{where}/bundles/{first.version}"
    assert promote.report(run)[0] == f"champion: {first.version} (change 1 in {where})"
    second = evaluated(remote, seed=2, users=1, rows=1)
    with pytest.raises(GateRefused, match=f"{second.version} beside {first.version} is not judged"):
        promote.execute(run)
    assert (registry.champion(), len(registry.versions())) == (first.version, 2)


def test_a_champion_that_comes_while_bundles_are_compared_stays(
    remote: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluated(remote, seed=1, users=MIN_USERS, rows=50)
    promote.execute(Run.open(remote))
    third = evaluated(remote, seed=3, users=MIN_USERS, rows=50)
    Registry.of(remote).add(third.folder, third.version)
    evaluated(remote, seed=2, users=MIN_USERS, rows=50)

    def answered(*_: object) -> dict[str, promote.Answered]:
        Registry.of(remote).promote(third.version, over=first.version)
        return {first.version: promote.Answered(np.full((50, len(COLUMNS)), 0.4), {})}

    monkeypatch.setattr(promote, "answers_of", answered)
    with pytest.raises(BundleError, match=f"another was first: {third.version} is champion since"):
        promote.execute(Run.open(remote))
    assert Registry.of(remote).champion() == third.version


def test_what_the_gate_said_and_what_changed_are_noted_for_the_page(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open(recipe)
    first = evaluated(recipe, seed=1, users=MIN_USERS, rows=50)
    promote.execute(run)
    noted = json.loads(run.decision_file.read_text())
    assert (noted["bundle"], noted["promoted"], noted["changes"]) == (first.version, True, None)
    changed = Run.open(with_settings(recipe, {"train.learning_rate": 0.5}))
    second = evaluated(changed.recipe, seed=2, users=MIN_USERS, rows=50)
    rows = pl.read_parquet(run.rows_file)
    told = [pl.lit(0.5).alias(f"{OURS}:{slice_}/{metric}") for slice_, metric in COMPARED]
    rows.with_columns(told).write_parquet(run.rows_file)
    theirs = promote.Answered(np.full((50, len(COLUMNS)), 0.6), {"u1": ["i1"]})
    monkeypatch.setattr(promote, "answers_of", lambda *_: {first.version: theirs})
    with pytest.raises(GateRefused):
        promote.execute(changed)
    noted = json.loads(run.decision_file.read_text())
    assert (noted["bundle"], noted["promoted"]) == (second.version, False)
    assert noted["evidence"]["champion"] == first.version and noted["evidence"]["refusals"]
    changes = noted["changes"]
    assert [(each["slice"], each["metric"]) for each in changes["metrics"]] == COMPARED
    assert all(each["difference"] == pytest.approx(-0.1) for each in changes["metrics"])
    assert changes["recipe"] == [["train.learning_rate", recipe.train.learning_rate, 0.5]]
    assert changes["items"]["new"] == changes["items"]["gone"] == 0 < changes["items"]["both"]
    assert changes["lists"] == {"u1": ["i1"]}


ON_CLICKS = {"promote.metric": "clicks"}


def arms_tested(
    run: Run, challenger: str, champion: str, *, low: float, refusals: list[str]
) -> None:
    """What `recsys outcomes` leaves of a test of two arms."""
    rate = {
        "difference": low + 0.01, "incumbent_value": 0.2, "refusals": refusals,
        "interval": None if refusals else [low, low + 0.02],
    }  # fmt: skip
    compared = {
        "challenger": "new", "incumbent": "old", "models": [[challenger], [champion]],
        "users": [500, 500], "rates": {"ctr": rate},
    }  # fmt: skip
    (run.root / OUTCOMES_FILE).write_text(json.dumps({"comparisons": [compared]}))


def test_a_decision_that_was_not_told_is_told_by_the_next_run(recipe: Recipe) -> None:
    """`promote` was ended when the registry had moved, and before the page knew."""
    first, run = evaluated(recipe, seed=1, users=1, rows=1), Run.open(recipe)
    promote.execute(run)
    told = json.loads(run.decision_file.read_text())
    run.decision_file.unlink()
    promote.execute(run)
    again = json.loads(run.decision_file.read_text())
    assert again["bundle"] == first.version and again["promoted"]
    assert again["evidence"] == told["evidence"] == Registry.of(recipe).evidence()


def test_two_arms_decide_where_the_recipe_says_so(recipe: Recipe) -> None:
    """By the rule of a refresh: it may lose 2 % of the champion's .2, which is .004."""
    recipe = with_settings(recipe, ON_CLICKS)
    run, registry = Run.open(recipe), Registry.of(recipe)
    first = evaluated(recipe, seed=1, users=MIN_USERS, rows=50)
    promote.execute(run)
    second = evaluated(recipe, seed=2, users=3, rows=50)
    arms_tested(run, second.version, first.version, low=-0.005, refusals=[])
    assert f"compare it with {first.version} on clicks" in promote.plan(run)[1]
    with pytest.raises(GateRefused, match="may lose more than 2.0% .*, ctr of the arms new and"):
        promote.execute(run)
    srm = ["users are not split between the arms as planned"]
    arms_tested(run, second.version, first.version, low=0.1, refusals=srm)
    with pytest.raises(GateRefused, match="clicks is not judged, by ctr .* not split"):
        promote.execute(run)
    assert registry.champion() == first.version
    arms_tested(run, second.version, first.version, low=-0.003, refusals=[])
    stricter = with_settings(recipe, ON_CLICKS | {"promote.confidence": 0.99})
    with pytest.raises(GateRefused, match="its interval is at 95%, not at 99.0%"):
        promote.execute(Run.open(stricter))
    promote.execute(run)
    assert registry.champion() == second.version
    evidence = registry.evidence()
    assert evidence["source"] == "ctr of the arms new and old" and evidence["metric"] == "clicks"
    assert evidence["bound"] == pytest.approx(-0.004)
    assert "ctr of the arms new and old: +0.0070 [-0.0030, +0.0170]" in promote.report(run)[1]


def test_without_such_a_test_the_logged_lists_decide(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arms that answered with other models say nothing; nor do lists that cannot be judged."""
    recipe = with_settings(recipe, ON_CLICKS)
    run, registry = Run.open(recipe), Registry.of(recipe)
    first = evaluated(recipe, seed=1, users=MIN_USERS, rows=50)
    promote.execute(run)
    second = evaluated(recipe, seed=2, users=MIN_USERS, rows=50)
    arms_tested(run, "another", first.version, low=0.1, refusals=[])
    with pytest.raises(DataError, match="no prepared data"):
        promote.plan(run)

    monkeypatch.setattr(by_outcomes, "logged_lists", lambda _: None)
    # What the service orders otherwise is not judged by the score.
    by_click = Run.open(with_settings(recipe, {"serve.objective": "click"}))
    with pytest.raises(GateRefused, match="another objective than relevance"):
        promote.execute(by_click)

    def refuse(*_: object) -> None:
        raise NotJudged("no logged list can be judged: 7 not_drawn", fix="explore")

    monkeypatch.setattr(by_outcomes, "judge_lists", refuse)
    with pytest.raises(GateRefused, match="not judged, by the logged lists: no logged list can"):
        promote.execute(run)
    promote.execute(run, force=True)
    assert registry.champion() == second.version
    assert "forced, although" in promote.report(run)[1]
