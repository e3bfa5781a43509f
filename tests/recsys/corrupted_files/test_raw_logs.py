"""Damaged raw logs, and logs with strange values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from damage import files
from damaged_reading import NOW, SCALE, Tally, each_damage, is_flip, outcome
from tiny import day, tiny_events, tiny_items, tiny_recipe, write_log

from recsys.config import Cuts, Data
from recsys.data.adapters import open_adapter
from recsys.data.checks import check_events
from recsys.errors import DataError
from recsys.schema import EVENTS, Col

#: Columns without which there is no event.
REQUIRED = (Col.user, Col.item, Col.event_type, Col.timestamp)


def read(data: Data) -> list[pl.DataFrame]:
    """Every frame of events, and the items, as the adapter reads them."""
    adapter = open_adapter(data)
    frames = [adapter.read_events(part) for part in adapter.parts()]
    for frame in frames:
        check_events(frame, latest_us=NOW, known_items=pl.Series(["item-0001"]))
    return [*frames, adapter.read_items().table]


def content(data: Data) -> list[Any]:
    """Of every frame the columns' values, as they are told."""
    return [{name: str(frame[name].to_list()) for name in frame.columns} for frame in read(data)]


def test_your_own_parquet(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", tiny_events(5), tiny_items())
    data = tiny_recipe(tmp_path).data
    assert read(data)[1].height == 40
    tally = Tally(lambda _: content(data), log)
    for name, what in each_damage(log, files(log), num_flips=60 * SCALE):
        if what != "gone":  # then the folder is named
            # Events name items too: the catalogue's checks find that these have no text.
            tally.take(name, what, may_change=is_flip(what) or what.endswith("in its place"))
    tally.must_have_refused(0.8)


def test_the_demo_s_log(tmp_path: Path) -> None:
    when = pl.Series([day(1), day(2)]).dt.replace_time_zone(None)
    pl.DataFrame(
        {
            "household_id": [1, 2], "product_id": [1, 2], "transaction_timestamp": when,
            "basket_id": [1, 2], "quantity": [1, 0], "sales_value": [1.0, 2.0],
            "retail_disc": [0.0, 0.0], "coupon_match_disc": [0.0, 0.0],
        }
    ).write_parquet(tmp_path / "transactions.parquet")  # fmt: skip
    pl.DataFrame(
        {
            "product_id": [1], "product_type": ["cup"], "package_size": ["1"],
            "department": ["home"], "brand": ["acme"], "product_category": ["cups"],
        }
    ).write_parquet(tmp_path / "products.parquet")  # fmt: skip
    cuts = Cuts.model_validate({"valid": "2024-03-01", "test": "2024-04-01"})
    data = Data(adapter="completejourney", source=str(tmp_path), cuts=cuts)
    assert [frame.height for frame in read(data)] == [2, 2]
    tally = Tally(lambda _: content(data), tmp_path)
    for name, what in each_damage(tmp_path, files(tmp_path), num_flips=30 * SCALE):
        tally.take(name, what, may_change=is_flip(what))
    tally.must_have_refused(0.8)


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_moments_beyond_all_bounds_are_quarantined_or_named(tmp_path: Path, unit: Any) -> None:
    data, events = tiny_recipe(tmp_path).data, tiny_events(5).head(3)
    moments = pl.Series([-(2**63) + 1, 2**63 - 1, -5000], dtype=pl.Int64)
    odd = events.with_columns(moments.cast(pl.Datetime(unit, "UTC")).alias(Col.timestamp))
    write_log(tmp_path / "log", odd, tiny_items())
    adapter = open_adapter(data)
    try:
        [frame] = [adapter.read_events(part) for part in adapter.parts()]
    except DataError as error:
        assert error.field == Col.timestamp and "events.parquet" in str(error)
        return
    good, bad = check_events(frame, latest_us=NOW, known_items=tiny_items()[Col.item])
    assert good.is_empty() and bad.height == 3
    assert {"ancient_timestamp"} < set(bad[Col.reason])


@pytest.mark.parametrize("name", EVENTS.names)
def test_strange_values_are_quarantined_or_named(tmp_path: Path, name: str) -> None:
    data, events = tiny_recipe(tmp_path).data, tiny_events(5).head(3)
    num_refused = 0
    for values in (pl.Series([None] * 3, dtype=pl.Null), pl.Series([b"\xff"] * 3),
                   pl.Series([[1]] * 3), pl.Series([1.5, math.nan, math.inf]),
                   pl.Series([{"a": 1}] * 3)):  # fmt: skip
        log = write_log(tmp_path / "log", events.with_columns(values.alias(name)), tiny_items())
        found = outcome(lambda _: read(data), log, "events.parquet")
        if found is None:
            num_refused += 1
            continue
        good, _ = check_events(found[0], latest_us=NOW, known_items=tiny_items()[Col.item])
        if name in REQUIRED or values.dtype == pl.Binary:  # bytes that are no text
            assert good.is_empty(), values
        else:
            assert good[name].is_null().all() or values.dtype == pl.Float64, values
    assert num_refused >= 2
