"""Inputs are the same for a batch and for one user; a score counts by its percentile."""

from __future__ import annotations

import numpy as np
import polars as pl
from simulated_exposures import examples_of, simulate

from recsys.outcome_heads.inputs import Asked, Inputs, InputSpec, score_quantiles
from recsys.schema import Col

LOG = simulate(3_000)


def test_one_user_s_inputs_are_those_of_the_batch() -> None:
    _, spec, _, tables = examples_of(LOG)
    inputs = Inputs(spec, tables, LOG.items)
    rows = LOG.rows.filter(pl.col(Col.user) == "u3")
    together = inputs.of(Asked.of(spec, LOG.items, rows))
    for row, expected in zip(rows.iter_rows(named=True), together, strict=True):
        asked = Asked.one_user(
            "u3", LOG.items.rows_of(pl.Series([row[Col.item]])),
            now=int(row[Col.timestamp].timestamp() * 1e6), placement="home",
            percentiles=np.array([np.nan], np.float32),
        )  # fmt: skip
        assert np.allclose(inputs.of(asked)[0], expected, atol=1e-6)


def test_unknown_users_items_and_placements_have_finite_inputs() -> None:
    _, spec, _, tables = examples_of(LOG)
    for user, placement in ((None, None), ("nobody", "nowhere")):
        asked = Asked.one_user(
            user, np.array([-1, 0]), now=tables.as_of, placement=placement,
            percentiles=np.array([np.nan, 0.5], np.float32),
        )  # fmt: skip
        assert np.isfinite(Inputs(spec, tables, LOG.items).of(asked)).all()


def test_a_score_counts_by_its_percentile_in_its_version() -> None:
    scores = np.linspace(-3, 7, 501)
    spec = InputSpec(
        ("click",), (), (), False,
        {"one": score_quantiles(scores), "two": score_quantiles(scores * 100)},
    )  # fmt: skip
    found = spec.percentiles(scores, "one")
    assert np.allclose(found, np.linspace(0, 1, 501), atol=0.011)
    assert np.array_equal(found, spec.percentiles(scores * 100, "two"))
    assert np.isnan(spec.percentiles(scores, "three")).all()
    assert InputSpec.from_plain(spec.plain()) == spec
