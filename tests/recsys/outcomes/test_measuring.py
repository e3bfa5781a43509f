"""Rates of exposures: by hand, and of a random log against sums over its rows in plain Python."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import tiny_recipe

from recsys.errors import DataError
from recsys.evaluation.metrics.ratio import MIN_OUTCOMES, ratio
from recsys.outcomes.measuring import measure
from recsys.schema import EXPOSURES, TOLD_BY, Col

Row = dict[str, Any]
#: Rate -> numerator and denominator of a row; `first` is the first row of a request in its group.
PLAIN: dict[str, tuple[Callable[[Row], float], Callable[[Row], float]]] = {
    "ctr": (lambda row: row[Col.clicked], lambda row: 1),
    "cart_rate": (lambda row: row[Col.carted], lambda row: 1),
    "cvr": (lambda row: row[Col.purchased], lambda row: 1),
    "cvr_of_clicks": (
        lambda row: row[Col.clicked] and row[Col.purchased],
        lambda row: row[Col.clicked],
    ),
    "mean_dwell_ms": (
        lambda row: row[Col.dwell_ms] or 0,
        lambda row: row[Col.dwell_ms] is not None,
    ),
    "revenue_per_request": (
        lambda row: (row[Col.value] or 0) if row[Col.request] else 0,
        lambda row: row["first"],
    ),
}


def exposure(number: int, user: str | None, item: str, **more: Any) -> Row:
    """One on the first day of March, of request r{number} unless told otherwise."""
    return {name: 0 if kind == pa.int64() else None for name, kind in
            zip(EXPOSURES.names, EXPOSURES.types, strict=True)} | {
        Col.exposure: f"e{number}", Col.user: user, Col.item: item, Col.request: f"r{number}",
        Col.timestamp: dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC), Col.clicked: False,
        Col.carted: False, Col.purchased: False, Col.returned: False, Col.dwell_ms: None,
    } | more  # fmt: skip


def write(folder: Path, rows: list[Row]) -> Path:
    days: dict[str, list[Row]] = {}
    for row in rows:
        days.setdefault(str(row[Col.timestamp].date()), []).append(row)
    for day, found in days.items():
        pq.write_table(pa.Table.from_pylist(found, EXPOSURES), folder / f"{day}.parquet")
    summary = {"counts": {"exposures": len(rows)}, "days": {day: {} for day in days}}
    summary |= {"attribution_window_h": 24.0}
    (folder / "exposures.json").write_text(json.dumps(summary))
    return folder


def test_by_hand(tmp_path: Path) -> None:
    shown = [
        exposure(1, "u", "i1", position=1, arm="a", clicked=True, purchased=True, value=3.0),
        exposure(2, "u", "i2", request_id="r1", position=2, arm="a", carted=True, dwell_ms=500),
        exposure(3, "v", "i1", position=1, arm="a", clicked=True, dwell_ms=0),
        exposure(4, None, "new", position=1, arm="a"),
        exposure(5, None, "i1", request_id=None, placement="home", purchased=True, value=9.0),
    ]
    catalogue = pl.Series(["i1", "i2", "i3", "i4"])
    recipe = tiny_recipe(tmp_path)
    found = measure(recipe, write(tmp_path, shown), ["arm", "position"], catalogue)
    (every,) = found["all"]
    told = {name: rate["value"] for name, rate in every.pop("rates").items()}
    assert every == {
        "name": "all", "users": 4, "exposures": 5, "requests": 3, "clicks": 2, "carts": 1,
        "purchases": 2, "clicked_purchases": 1, "purchases_without_value": 0, "dwells": 2,
        "dwell_ms": 500, "revenue": 3.0, "coverage": 0.5,
    }  # fmt: skip
    assert told == {
        "ctr": 0.4, "cart_rate": 0.2, "cvr": 0.4, "cvr_of_clicks": 0.5, "mean_dwell_ms": 250,
        "revenue_per_request": 1.0,
    }  # fmt: skip
    places = {each["name"]: each for each in found["by"]["position"]}
    assert [*places] == [1, 2, None] and [*found["by"]] == ["arm", "position"]
    assert places[1]["requests"] == 3 and places[2]["requests"] == 1
    assert places[None]["rates"]["revenue_per_request"]["value"] is None
    assert [each["coverage"] for each in places.values()] == [0.25, 0.25, 0.25]


def test_a_revenue_that_nobody_told_is_not_zero(tmp_path: Path) -> None:
    rows = [exposure(number, f"u{number}", "i1", purchased=number < 2) for number in range(4)]
    (every,) = measure(tiny_recipe(tmp_path), write(tmp_path, rows), [], None)["all"]
    assert every["rates"]["revenue_per_request"]["value"] is None
    assert (every["purchases_without_value"], every["coverage"]) == (2, None)
    for row in rows:
        row[Col.purchased] = False
    (every,) = measure(tiny_recipe(tmp_path), write(tmp_path, rows), [], None)["all"]
    assert every["rates"]["revenue_per_request"]["value"] == 0


def test_few_among_many_are_few(tmp_path: Path) -> None:
    """Without skewness too: two dwell times, of a thousand users."""
    rows = [exposure(number, f"u{number}", "i1") for number in range(1000)]
    rows[0][Col.dwell_ms], rows[1][Col.dwell_ms] = 100, 200
    (every,) = measure(tiny_recipe(tmp_path), write(tmp_path, rows), [], None)["all"]
    assert every["rates"]["mean_dwell_ms"] == {
        "value": 150, "interval": None, "effective_outcomes": 2,
    }  # fmt: skip


def random_log(num_requests: int) -> list[Row]:
    """Lists of three, some without user, some impressions without request, on four days."""
    rng = np.random.default_rng(5)
    rows = []
    for number in range(num_requests):
        at = dt.datetime(2024, 3, 1, tzinfo=dt.UTC) + dt.timedelta(hours=rng.uniform(0, 96))
        user = None if rng.random() < 0.2 else f"u{rng.integers(120)}"
        has_request, arm = rng.random() < 0.9, [None, "a", "b"][rng.integers(3)]
        for place in range(1, 4):
            bought = bool(rng.random() < 0.15)
            rows.append(
                exposure(
                    3 * number + place, user, f"i{rng.integers(30)}", timestamp=at, arm=arm,
                    request_id=f"r{number}" if has_request else None, position=place,
                    model_version=f"m{number % 2}", placement=[None, "home"][place % 2],
                    clicked=bool(rng.random() < 0.3), carted=bool(rng.random() < 0.2),
                    purchased=bought, value=float(rng.lognormal()) if bought else None,
                    dwell_ms=int(rng.integers(9000)) if rng.random() < 0.5 else None,
                )
            )  # fmt: skip
    return rows


def plain_rates(rows: list[Row]) -> dict[str, Any]:
    units = np.array([row[Col.user] or row[Col.request] or row[Col.exposure] for row in rows])
    seen: set[str] = set()
    for row in rows:
        row["first"] = row[Col.request] is not None and row[Col.request] not in seen
        seen.add(row[Col.request])
    found = {}
    for name, parts in PLAIN.items():
        above, below = (np.array([float(part(row)) for row in rows]) for part in parts)
        of_it = np.isin(units, units[below > 0])
        found[name] = ratio(above[of_it], below[of_it], units[of_it])
    return found


def test_against_plain_python(tmp_path: Path) -> None:
    rows, known = random_log(600), {f"i{number}" for number in range(5, 40)}
    found = measure(tiny_recipe(tmp_path), write(tmp_path, rows), [*TOLD_BY], pl.Series([*known]))
    assert found["days"] == 4 and [*found["by"]] == [*TOLD_BY]
    with_interval = 0
    for name, column in TOLD_BY.items():
        for group in found["by"][name]:
            ours = [
                row for row in rows
                if (row.get(column) if name != "day" else str(row[Col.timestamp].date()))
                == group["name"]
            ]  # fmt: skip
            assert group["exposures"] == len(ours) > 0
            assert group["coverage"] == len({row[Col.item] for row in ours} & known) / len(known)
            for rate, slow in plain_rates(ours).items():
                told = group["rates"][rate]
                assert told["value"] == pytest.approx(slow.value)
                assert told["effective_outcomes"] == pytest.approx(slow.effective_outcomes)
                suffices = slow.effective_outcomes >= MIN_OUTCOMES
                assert told["interval"] == (pytest.approx(slow.interval()) if suffices else None)
                with_interval += suffices
        assert sum(group["exposures"] for group in found["by"][name]) == len(rows)
    assert 30 < with_interval < len(PLAIN) * sum(map(len, found["by"].values()))


def test_a_broken_day_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, [exposure(1, "u", "i1")])
    (folder / "2024-03-01.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"2024-03-01\.parquet.*recsys exposures"):
        measure(tiny_recipe(tmp_path), folder, ["arm"], None)
