"""The gate as a job, without a cluster: what is refused before the incumbent is asked anything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from bundles import make_bundle
from object_store import ObjectStore
from tiny import tiny_recipe

from ray_jobs import promote
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.registry import Registry
from recsys.artifacts.run import Run
from recsys.config import Recipe
from recsys.errors import BundleError, DataError, GateRefused
from recsys.evaluation.gate import MIN_USERS, Verdict
from recsys.evaluation.report import METRIC, OURS


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return tiny_recipe(tmp_path)


@pytest.fixture
def remote(tmp_path: Path, store: ObjectStore) -> Recipe:
    """With a registry in a store."""
    registry = {"registry": f"{store.uri}/registry/{{name}}"}
    return tiny_recipe(tmp_path, promote=registry, storage={"cache_dir": str(tmp_path / "cache")})


def evaluated(recipe: Recipe, *, seed: int, users: int, rows: int) -> Bundle:
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
    evaluated(recipe, seed=2, users=MIN_USERS, rows=50)
    assert promote.plan(Run.open(recipe))[1].startswith("compare it with tiny-")


def test_a_dry_run_says_that_nothing_was_evaluated(recipe: Recipe) -> None:
    make_bundle(Run.open(recipe).bundle_folder, recipe, seed=1)
    with pytest.raises(DataError, match="not been evaluated"):
        promote.plan(Run.open(recipe))


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

    def compared(*_: object) -> Verdict:
        Registry.of(remote).promote(third.version, over=first.version)
        return Verdict(0.1, 0.05, 0.15, MIN_USERS)

    monkeypatch.setattr(promote, "compare_with", compared)
    with pytest.raises(BundleError, match=f"another was first: {third.version} is champion since"):
        promote.execute(Run.open(remote))
    assert Registry.of(remote).champion() == third.version
