"""What the recipe's `tune` is to Ray Tune, without a cluster."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest
from small_recipe import changed

from ray_jobs.searching.drawing import algorithm, check_installed, param_space, scheduler
from recsys.config import Recipe, recipe_from_dict, with_settings
from recsys.errors import RecipeError
from recsys.evaluation.report import METRIC

SPACE = {
    "train.learning_rate": {"loguniform": [1e-4, 1e-1]},
    "model.dropout": {"uniform": [0, 0.5]},
    "model.num_layers": {"int": [1, 3]},
    "train.batch_size": {"choice": [8, 16]},
}


def recipe(**tune: Any) -> Recipe:
    return recipe_from_dict(changed("tune", {"space": SPACE, "search": "tpe", **tune}))


def drawn(tune: Recipe, number: int) -> list[dict[str, Any]]:
    """Settings of the first trials by TPE, where a rate of .01 is the best."""
    source = algorithm(tune, 1)
    source.set_search_properties(METRIC, "max", param_space(tune))
    found = []
    for trial in range(number):
        settings = source.suggest(str(trial))
        found.append(settings)
        value = -abs(settings["train.learning_rate"] - 0.01)
        source.on_trial_complete(str(trial), {METRIC: value, "training_iteration": 1})
    return found


def test_the_seed_decides_what_tpe_draws() -> None:
    one = drawn(recipe(num_trials=20), 20)
    assert one == drawn(recipe(num_trials=20), 20)
    other = recipe_from_dict(recipe(num_trials=20).resolved() | {"seed": 8})
    assert one != drawn(other, 20)


def test_whatever_is_drawn_is_a_recipe_within_the_space() -> None:
    for settings in drawn(recipe(num_trials=20), 20):
        found = with_settings(recipe(), settings)
        assert 1e-4 <= found.train.learning_rate <= 1e-1
        assert 0 <= found.model.dropout <= 0.5
        assert found.model.num_layers in (1, 2, 3)
        assert found.train.batch_size in (8, 16)


def test_tpe_draws_near_what_was_good() -> None:
    """At random a quarter of the rates lies so near: the range is three powers of ten."""
    rates = [each["train.learning_rate"] for each in drawn(recipe(num_trials=40), 40)]
    near = [0.004 < rate < 0.025 for rate in rates]
    assert sum(near[:10]) <= 4
    assert sum(near[-20:]) >= 10


def test_no_more_unfinished_trials_than_asked() -> None:
    source = algorithm(recipe(), 2)
    source.set_search_properties(METRIC, "max", param_space(recipe()))
    assert [source.suggest(name) is not None for name in "abc"] == [True, True, False]
    source.on_trial_complete("a", error=True)  # a failed one counts no longer
    assert source.suggest("d") is not None


def test_without_optuna_tpe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "optuna" else found(name)
    )
    check_installed(recipe(search="random"))
    with pytest.raises(RecipeError, match=r"pip install 'raycommend\[tune\]'"):
        check_installed(recipe())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("asha", "AsyncHyperBandScheduler"),
        ("median", "MedianStoppingRule"),
        ("none", "FIFOScheduler"),
    ],
)
def test_the_scheduler_is_the_recipe_s(name: str, kind: str) -> None:
    assert type(scheduler(recipe(scheduler=name))).__name__ == kind


def test_the_median_ends_a_trial_that_lags() -> None:
    """Three others have come as far, and each was better."""
    from ray.tune.experiment import Trial

    stopping = scheduler(recipe(scheduler="median"))
    stopping.set_search_properties(METRIC, "max")
    controller = SimpleNamespace(get_live_trials=list)
    decisions = [
        stopping.on_trial_result(controller, Trial("x", stub=True), {"epoch": 1, METRIC: value})
        for value in (0.5, 0.4, 0.3, 0.1, 0.6)
    ]
    assert decisions == ["CONTINUE"] * 3 + ["STOP", "CONTINUE"]
