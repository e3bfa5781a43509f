"""The last part of `train` and `tune`: outcome heads."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from bundles import make_bundle, make_language_model, make_recipe
from outcome_shop import OutcomeShop
from prepare_runs import hashes
from recommenders import HISTORY, NEWCOMER
from tiny import tiny_shop

from ray_jobs import train
from ray_jobs.common.cluster import connected
from ray_jobs.common.outcome_fit import fit_in_task, fit_outcomes, fitted_heads
from ray_jobs.embed import list_scores
from recsys.artifacts.run import Run
from recsys.config import recipe_from_dict
from recsys.data.histories import Histories
from recsys.outcomes.joining import EXPOSURES_DIR
from recsys.recommender.loading import load_scorer


@pytest.fixture(scope="module")
def exposures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outcomes")
    return OutcomeShop(folder, num_users=40, num_days=5, epochs=1).lists.out


@pytest.fixture
def run(tmp_path: Path, exposures: Path) -> Run:
    run = Run.open(tiny_shop(tmp_path).recipe)
    shutil.copytree(exposures, run.root / EXPOSURES_DIR)
    return run


def with_heads(run: Run, **settings: object) -> Run:
    raw = run.recipe.resolved()
    raw["outcomes"]["heads"] |= settings
    return run.with_recipe(recipe_from_dict(raw))


def test_heads_are_fitted_once_where_there_is_enough(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(of: Run) -> str:
        capsys.readouterr()
        fit_outcomes(of, fit_in_task)
        return capsys.readouterr().out.strip()

    assert train.plan(run)[-1] == f"fit outcome heads, write {run.heads_folder}"
    assert told(run).startswith("outcome heads: click: AUC ")
    first = hashes(run.heads_folder)
    assert any(name.startswith("users/") for name in first)
    heads = fitted_heads(run)
    assert heads is not None and heads.card["heads"].keys() == {"click", "purchase"}
    assert told(run) == "outcome heads: fitted already"
    shutil.rmtree(run.heads_folder)
    told(run)
    assert hashes(run.heads_folder) == first, "the same exposures and seed give the same bytes"
    assert told(with_heads(run, epochs=1)) != "outcome heads: fitted already"
    picky = with_heads(run, min_clicks=10**6)
    assert "clicks in" in told(picky) and "asks for 1,000,000" in train.plan(picky)[-1]
    assert fitted_heads(run) is None
    missing = run.root / EXPOSURES_DIR
    shutil.rmtree(missing)
    assert told(run) == f"no outcome heads: there is no {missing} (`recsys exposures`)"


def test_the_bundle_learns_how_the_scores_of_its_lists_lie(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, make_language_model(tmp_path / "language"))
    scorer = load_scorer(make_bundle(tmp_path / "bundle", recipe, seed=1))
    users = Histories.joined([NEWCOMER, HISTORY])
    found = list_scores(scorer, users, 10)
    every = -np.sort(-scorer.scores(users), axis=1)
    assert found.reshape(2, 10) == pytest.approx(every[:, :10], abs=1e-5)


@pytest.mark.ray
def test_a_task_of_ray_fits_them(cluster: None, run: Run) -> None:
    with connected(run.recipe.ray):
        fit_outcomes(run)
    assert fitted_heads(run) is not None
