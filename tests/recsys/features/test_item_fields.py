from __future__ import annotations

import polars as pl
import pytest

from recsys.features.item_fields import MIN_ITEMS, PRICE_RANGES, UNKNOWN, ItemFields
from recsys.schema import Col

SCHEMA = {Col.brand: pl.String, Col.category: pl.String, Col.price: pl.Float64}


def frame(*items: tuple[str | None, str | None, float | None]) -> pl.DataFrame:
    return pl.DataFrame(items, schema=SCHEMA, orient="row")


ITEMS = frame(
    *[("acme", "cup", float(price)) for price in range(40)],
    *[("globex", "acme", None) for _ in range(MIN_ITEMS)],
    *[("rare", None, None) for _ in range(MIN_ITEMS - 1)],
)


def test_values_have_rows_of_their_own_and_rare_ones_none() -> None:
    fields = ItemFields.of(ITEMS, ["brand", "category"])
    assert fields.num_rows == 5
    found = fields.rows(frame(("acme", "acme", 3.0), ("globex", "cup", None), ("rare", None, 1.0)))
    assert found.tolist() == [[1, 3], [2, 4], [UNKNOWN, UNKNOWN]]


def test_prices_are_ranges_with_as_many_items() -> None:
    many = frame(*[(None, None, float(price)) for price in range(10 * PRICE_RANGES)])
    fields = ItemFields.of(many, ["price"])
    rows = fields.rows(many)[:, 0]
    assert fields.num_rows == PRICE_RANGES + 1
    assert (rows[1:] >= rows[:-1]).all()
    assert set(pl.Series(rows).value_counts()["count"]) == {10}
    odd = fields.rows(frame(*[(None, None, x) for x in (-1.0, 1e9, None, float("nan"))]))
    assert odd[:, 0].tolist() == [1, PRICE_RANGES, UNKNOWN, UNKNOWN]


@pytest.mark.parametrize("price", [None, 5.0])
def test_prices_that_are_all_alike_or_unknown(price: float | None) -> None:
    items = frame(*[("acme", None, price)] * 10)
    rows = ItemFields.of(items, ["price"]).rows(items)
    assert set(rows[:, 0].tolist()) == {UNKNOWN if price is None else 1}


def test_the_order_of_the_items_changes_nothing() -> None:
    names = ("price", "brand", "category")
    one, other = (ItemFields.of(items, names) for items in (ITEMS, ITEMS.reverse()))
    assert one.values == other.values
    assert (one.rows(ITEMS) == other.rows(ITEMS)).all()


def test_rows_in_another_vocabulary_are_those_of_the_same_values() -> None:
    then = ItemFields.of(ITEMS, ["category", "brand"])
    new = frame(*[("aaa", "acme", None)] * MIN_ITEMS, *[("globex", None, None)] * MIN_ITEMS)
    now = ItemFields.of(new, ["brand", "category"])
    found = now.rows_in(then)
    assert found[UNKNOWN] == UNKNOWN
    brands, categories = now.values
    assert found[brands["aaa"]] == -1
    assert found[brands["globex"]] == then.values[1]["globex"] != brands["globex"]
    assert found[categories["acme"]] == then.values[0]["acme"]


@pytest.mark.parametrize(("shift", "grown"), [(0.0, 1.0), (0.3, 1.0), (2.0, 1.01)])
def test_ranges_of_prices_are_found_though_their_bounds_move(shift: float, grown: float) -> None:
    prices = [float(price) for price in range(10 * PRICE_RANGES)]
    then = ItemFields.of(frame(*[(None, None, price) for price in prices]), ["price"])
    moved = [price * grown + shift for price in prices]
    now = ItemFields.of(frame(*[(None, None, price) for price in moved]), ["price"])
    assert now.rows_in(then).tolist() == list(range(PRICE_RANGES + 1))


def test_a_range_of_prices_that_nobody_had_is_none_of_another() -> None:
    then = ItemFields.of(frame(*[("acme", None, None)] * MIN_ITEMS), ["brand", "price"])
    now = ItemFields.of(ITEMS, ["price"])
    assert now.rows_in(then).tolist() == [UNKNOWN, *[-1] * (now.num_rows - 1)]
    same = ItemFields.of(frame(*[("acme", None, 5.0)] * 10), ["price"])
    assert same.rows_in(same).tolist() == [UNKNOWN, 1]


def test_without_fields_there_are_no_columns() -> None:
    fields = ItemFields.of(ITEMS, [])
    assert fields.rows(ITEMS).shape == (ITEMS.height, 0)
    assert fields.num_rows == 1
