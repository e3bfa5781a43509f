"""The heads find a planted truth in a log with a known position bias, and stand on disk whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from simulated_exposures import PER_PLACE, PLACES, Simulated, examples_of, simulate

from recsys.errors import DataError
from recsys.evaluation.metrics.calibration import ece_equal_mass
from recsys.evaluation.metrics.classification import pointwise_auc
from recsys.outcome_heads.baselines import baselines
from recsys.outcome_heads.card import card_of
from recsys.outcome_heads.examples import weights_of
from recsys.outcome_heads.fit import FitSettings
from recsys.outcome_heads.inputs import Asked, Inputs
from recsys.outcome_heads.learn import Examples, learn
from recsys.outcome_heads.model import OutcomeModel
from recsys.outcome_heads.rates.tables import RateTables
from recsys.schema import Col

SHAPE = {"hidden": [32], "dropout": 0.1, "members": 1}
SETTINGS = FitSettings(max_epochs=8, lr=2e-3, batch_rows=256)


@pytest.fixture(scope="module")
def log() -> Simulated:
    return simulate(30_000)


@pytest.fixture(scope="module")
def learned(log: Simulated) -> tuple[OutcomeModel, Examples, RateTables]:
    examples, spec, placements, tables = examples_of(log)
    model = learn(examples, spec, placements, settings=SETTINGS, shape=SHAPE)
    return model, examples, tables


def test_probabilities_are_those_that_were_planted(
    log: Simulated, learned: tuple[OutcomeModel, Examples, RateTables]
) -> None:
    model, examples, _ = learned
    later = examples.later
    given, truth = model.judged["click"], log.truth[later]
    clicked = log.rows[Col.clicked].to_numpy()[later]
    # 5,000 rows in 15 bins: without any error of the model the expected ECE is 0.018.
    assert ece_equal_mass(given, clicked) < 0.03
    assert np.corrcoef(given, truth)[0, 1] > 0.8
    assert abs(given - truth).mean() < 0.09
    rates = baselines(model.spec, examples.batch.inputs.numpy()[later], "click", 0.35)
    auc = {name: pointwise_auc(each, clicked) for name, each in rates.items()}
    ours = pointwise_auc(given, clicked)
    assert ours > max(auc["item rate"], auc["user rate"]) + 0.04
    # The truth is a sum of logits, so that this baseline cannot be beaten by much.
    assert ours > auc["sum of logits"] - 0.005
    assert ours > pointwise_auc(truth, clicked) - 0.015
    assert (model.judged["purchase"] <= given).all()
    assert abs(model.judged["purchase"].mean() - clicked.mean() * 0.2) < 0.015


def test_the_bias_of_positions_is_found(learned: tuple[OutcomeModel, Examples, RateTables]) -> None:
    bias = learned[0].heads.position.detach()[1, 1 : PLACES + 1]
    slope = np.polyfit(np.arange(PLACES), bias.numpy(), 1)[0]
    assert slope == pytest.approx(PER_PLACE, abs=0.08)


def test_dwell_and_value_are_those_that_were_planted(
    learned: tuple[OutcomeModel, Examples, RateTables],
) -> None:
    model, examples, _ = learned
    found = model.probabilities(examples.batch.inputs.numpy())
    assert found.dwell_ms is not None and found.value is not None
    assert found.dwell_ms.mean() == pytest.approx(np.exp(2.5 + 0.5) * 1000, rel=0.15)
    assert found.value.mean() == pytest.approx(np.exp(3.0 + 0.125), rel=0.15)


def test_the_same_seed_gives_the_same_weights(log: Simulated) -> None:
    examples, spec, placements, _ = examples_of(log)
    quick = FitSettings(max_epochs=1)
    one, other = (
        learn(examples, spec, placements, settings=quick, shape=SHAPE).heads.state_dict()
        for _ in range(2)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_saved_model_answers_as_before(
    log: Simulated, learned: tuple[OutcomeModel, Examples, RateTables], tmp_path: Path
) -> None:
    model, _, tables = learned
    model.save(tmp_path / "outcomes", tables, tmp_path / "users")
    opened, kept = OutcomeModel.open(tmp_path / "outcomes", tmp_path / "users")
    rows = np.arange(len(log.items.keys))
    asked = Asked.one_user(
        "u7", rows, now=tables.as_of, placement="home", percentiles=np.full(len(rows), np.nan)
    )
    one = model.probabilities(Inputs(model.spec, tables, log.items).of(asked))
    other = opened.probabilities(Inputs(opened.spec, kept, log.items).of(asked))
    for name in ("click", "purchase"):
        assert np.array_equal(one.of[name], other.of[name])
    _, nobody = OutcomeModel.open(tmp_path / "outcomes", None)
    assert not len(nobody.users.keys)
    for name in ("heads.safetensors", "things.counts.npy", "outcomes.json"):
        path = tmp_path / "outcomes" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-30] + bytes([whole[-30] ^ 1]) + whole[-29:])
        with pytest.raises(DataError, match=name):
            OutcomeModel.open(tmp_path / "outcomes", tmp_path / "users")
        path.write_bytes(whole)


def test_the_card_tells_of_the_heads_beside_the_baselines(
    log: Simulated, learned: tuple[OutcomeModel, Examples, RateTables]
) -> None:
    model, examples, _ = learned
    card = card_of(model, examples, log.rows[Col.timestamp].dt.epoch("us").to_numpy(), None)
    assert card["rows"] == log.rows.height
    figures = card["heads"]["click"]["figures"]
    assert set(figures) == {"heads", "item rate", "user rate", "sum of logits"}
    assert figures["heads"]["auc"]["low"] < figures["heads"]["auc"]["value"]


def test_propensities_weigh_up_to_the_clip() -> None:
    found = weights_of(pl.Series([None, 0.5, 0.001]), 10.0)
    assert found.tolist() == [1.0, 2.0, 10.0]
