"""Counts as of a night, against a plain computation; nothing later is in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from simulated_exposures import BEGIN, Simulated, simulate

from recsys.errors import DataError
from recsys.outcome_heads.rates.counts import PLACE, Counts
from recsys.outcome_heads.rates.keys import key_of, keys_of, of_user
from recsys.outcome_heads.rates.tables import DAY_US, RateTables, days_of, through_days
from recsys.schema import Col

HALF_LIFE = 2.0


@pytest.fixture(scope="module")
def log() -> Simulated:
    return simulate(600, num_days=4, num_users=9, num_items=8)


def tables_of(log: Simulated, rows: pl.DataFrame) -> list[RateTables]:
    """As of the begin of each day, and of the end."""
    empty = RateTables.empty(BEGIN, log.items.groups, half_life_days=HALF_LIFE)
    return [tables for tables, _ in through_days(empty, days_of(rows), log.items)]


def plainly(rows: pl.DataFrame, as_of: int, moment: str) -> float:
    """What happened before a night, each day worth half of that two days after it."""
    known = (us for us in rows[moment].drop_nulls().dt.epoch("us") if us < as_of)
    return sum(0.5 ** (((as_of - us - 1) // DAY_US) / HALF_LIFE) for us in known)


def test_counts_are_those_of_a_plain_computation(log: Simulated) -> None:
    for tables in tables_of(log, log.rows):
        of_item = log.rows.filter(pl.col(Col.item) == "i3")
        of_brand = log.rows.filter(pl.col(Col.item).is_in(["i0", "i7"]))
        of_pair = of_brand.filter(pl.col(Col.user) == "u2")
        user = keys_of("user", pl.Series(["u2"]))
        brand = np.array([key_of(Col.brand, "b0")], np.uint64)
        for table, key, rows in (
            (tables.things, np.array([key_of("item", "i3")], np.uint64), of_item),
            (tables.things, brand, of_brand),
            (tables.users, user, log.rows.filter(pl.col(Col.user) == "u2")),
            (tables.pairs, of_user(user, brand), of_pair),
        ):
            counts = table.at(table.find(key))[0]
            for name, moment in (
                ("shows", Col.timestamp),
                ("clicks", Col.clicked_ts),
                ("purchases", Col.purchased_ts),
            ):
                expected = plainly(rows, tables.as_of, moment)
                assert counts[PLACE[name]] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_nothing_of_a_day_or_later_is_in_its_tables(log: Simulated) -> None:
    """Purchases come an hour after: some fall on the next day, and are not known before it."""
    third = BEGIN + 2 * DAY_US
    later = pl.col(Col.timestamp).dt.epoch("us") >= third
    flipped = log.rows.with_columns(
        pl.when(later).then(None).otherwise(pl.col(Col.clicked_ts)).alias(Col.clicked_ts),
        pl.when(pl.col(Col.purchased_ts).dt.epoch("us") >= third)
        .then(None)
        .otherwise(pl.col(Col.purchased_ts))
        .alias(Col.purchased_ts),
    )
    pairs = list(zip(tables_of(log, log.rows), tables_of(log, flipped), strict=True))
    for ours, theirs in pairs[:3]:
        assert ours.as_of == theirs.as_of
        assert np.array_equal(ours.things.counts, theirs.things.counts)
        assert np.array_equal(ours.pairs.counts, theirs.pairs.counts)
    assert not np.array_equal(pairs[3][0].things.counts, pairs[3][1].things.counts)


def test_a_day_without_exposures_is_a_day(log: Simulated) -> None:
    second = pl.col(Col.timestamp).dt.date().dt.day() == 2
    tables = tables_of(log, log.rows.filter(~second))[1]
    assert tables.as_of == BEGIN + 2 * DAY_US
    first = log.rows.filter(pl.col(Col.timestamp).dt.epoch("us") < BEGIN + DAY_US)
    assert tables.total[PLACE["shows"]] == pytest.approx(first.height * 0.5**0.5, rel=1e-4)


def test_days_out_of_order_are_refused(log: Simulated) -> None:
    empty = RateTables.empty(BEGIN, log.items.groups)
    with pytest.raises(ValueError, match="in order"):
        list(through_days(empty, [log.rows], log.items))


def test_saved_tables_open(log: Simulated, tmp_path: Path) -> None:
    tables = tables_of(log, log.rows)[-1]
    for name in ("bundle", "run"):
        (tmp_path / name).mkdir()
    tables.save(tmp_path / "bundle", tmp_path / "run")
    assert not list((tmp_path / "bundle").glob("*users*"))
    found = RateTables.open(tmp_path / "bundle", tmp_path / "run")
    assert found.kinds == tables.kinds and found.days == tables.days
    assert np.array_equal(found.pairs.counts, tables.pairs.counts)
    broken = np.load(tmp_path / "run" / "pairs.keys.npy")[::-1]
    np.save(tmp_path / "run" / "pairs.keys.npy", broken)
    with pytest.raises(DataError, match=r"pairs\.keys\.npy.*do not rise"):
        RateTables.open(tmp_path / "bundle", tmp_path / "run")


def test_nothing_is_found_where_nothing_was_counted() -> None:
    empty = Counts.empty()
    assert not empty.at(empty.find(np.array([5], np.uint64))).any()
