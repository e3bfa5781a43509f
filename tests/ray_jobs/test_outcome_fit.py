"""The last part of `train`: outcome heads, fitted in a task of Ray."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from outcome_shop import OutcomeShop
from prepare_runs import hashes
from tiny import tiny_shop

from ray_jobs import train
from ray_jobs.common.cluster import connected
from ray_jobs.common.outcome_fit import fit_outcomes, fitted_heads
from recsys.artifacts.run import Run
from recsys.config import with_settings
from recsys.outcomes.joining import EXPOSURES_DIR


@pytest.mark.ray
def test_heads_are_fitted_once_where_there_is_enough(
    cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = OutcomeShop(tmp_path / "outcomes")
    run = Run.open(tiny_shop(tmp_path).recipe)

    def told(of: Run = run) -> str:
        capsys.readouterr()
        with connected(of.recipe.ray):
            fit_outcomes(of)
        return capsys.readouterr().out.strip()

    assert (
        told() == f"no outcome heads: there is no {run.root / EXPOSURES_DIR} (`recsys exposures`)"
    )
    shutil.copytree(shop.lists.out, run.root / EXPOSURES_DIR)
    assert train.plan(run)[-1] == f"fit outcome heads, write {run.heads_folder}"
    assert told().startswith("outcome heads: ")
    first = hashes(run.heads_folder)
    assert any(name.startswith("users/") for name in first)
    heads = fitted_heads(run)
    assert heads is not None and heads.card
    assert told() == "outcome heads: fitted already"
    shutil.rmtree(run.heads_folder)
    told()
    assert hashes(run.heads_folder) == first, "the same exposures and seed give the same bytes"
    picky = run.with_recipe(with_settings(run.recipe, {"outcomes.heads.min_clicks": 10**6}))
    assert "clicks in" in told(picky) and "asks for 1,000,000" in train.plan(picky)[-1]
    assert fitted_heads(run) is None
