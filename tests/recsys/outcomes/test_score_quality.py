"""What is told of the logged scores of each model."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.outcomes import score_quality
from recsys.outcomes.score_quality import Scored
from recsys.schema import Col


def day(seed: int, num: int = 4000, version: str | None = "m1") -> pl.DataFrame:
    """Exposures whose score says how they are clicked."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1, num)
    return pl.DataFrame(
        {
            Col.user: [f"u{n}" for n in rng.integers(400, size=num)], Col.request: None,
            Col.exposure: [f"e{n}" for n in range(num)], Col.model_version: version,
            Col.score: scores, Col.clicked: rng.random(num) < 1 / (1 + np.exp(2 - 1.5 * scores)),
        },
        schema_overrides={
            Col.request: pl.String, Col.score: pl.Float32, Col.model_version: pl.String
        },
    )  # fmt: skip


def told(*days: pl.DataFrame) -> list[dict[str, Any]]:
    scored = Scored()
    for rows in days:
        scored.add(rows)
    found = scored.told()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_each_model_is_told_of_by_itself() -> None:
    first, second = told(day(1), day(2), day(3, version="m2"), day(4, version=None))
    assert (first["name"], first["exposures"], second["name"]) == ("m1", 8000, "m2")
    assert first["share_of_users"] == 1.0 and first["users"] == 400
    low, high = first["auc"]["interval"]
    assert 0.7 < low < first["auc"]["value"] < high < 0.9
    report = first["classification"]
    assert report["clicked"]["support"] + report["not_clicked"]["support"] < 0.6 * 8000
    assert 0.3 < report["clicked"]["f1"] < report["not_clicked"]["f1"] < 1
    assert first["calibration"]["error"] < 0.03 and len(first["calibration"]["bins"]) == 15


def test_a_large_model_is_told_of_by_a_sample_of_its_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In whichever order the days come."""
    monkeypatch.setattr(score_quality, "MOST_ROWS", 3000)
    (found,), (other,) = told(day(1), day(2)), told(day(2), day(1))
    assert found["share_of_users"] == 0.25 and 60 < found["users"] < 140
    assert found == other


def test_few_clicks_tell_nothing() -> None:
    (found,) = told(day(1).with_columns(pl.col(Col.clicked) & (pl.int_range(pl.len()) < 30)))
    assert found["clicks"] < 10 and found["auc"] is found["classification"] is None
