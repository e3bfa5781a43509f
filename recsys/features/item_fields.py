"""Item fields: brand, category and price range as rows of one embedding table.

Legend: I items, M any items, F fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from recsys.arrays import Float64s, Int64s
from recsys.config import ItemField
from recsys.schema import Col

#: Row of a missing or rare value; its vector stays zero.
UNKNOWN: Final = 0
#: Least number of items that share a value; a rarer one would identify them.
MIN_ITEMS: Final = 5
#: Ranges of the price with about as many items in each.
PRICE_RANGES: Final = 16


@dataclass(frozen=True)
class ItemFields:
    """The vocabulary of one catalogue.

    Attributes:
        names: F fields.
        values: of each field, value -> row; of the price, number of the range -> row.
        price_bounds: between the ranges, rising.
        num_rows: of the table, `UNKNOWN` among them.
    """

    names: tuple[ItemField, ...]
    values: tuple[dict[str | int, int], ...]
    price_bounds: Float64s
    num_rows: int

    @staticmethod
    def of(items: pl.DataFrame, names: Sequence[ItemField]) -> ItemFields:
        """The vocabulary of a catalogue: the same items give the same rows."""
        prices = items[Col.price].drop_nulls().drop_nans().to_numpy()
        cuts = np.linspace(0, 1, PRICE_RANGES + 1)[1:-1]
        bounds = np.unique(np.quantile(prices, cuts)) if len(prices) else np.zeros(0)
        values, num_rows = [], UNKNOWN + 1
        for name in names:
            counted = _values(items[name], bounds).drop_nulls().value_counts(name="n")
            common = counted.filter(pl.col("n") >= MIN_ITEMS)[name].sort().to_list()
            values.append({value: row for row, value in enumerate(common, start=num_rows)})
            num_rows += len(common)
        return ItemFields(tuple(names), tuple(values), bounds, num_rows)

    def rows(self, items: pl.DataFrame) -> Int64s:
        """[M, F] rows of any items that have the columns `names`."""
        columns = [
            _values(items[name], self.price_bounds)
            .replace_strict(rows, default=UNKNOWN, return_dtype=pl.Int64)
            .to_numpy()
            for name, rows in zip(self.names, self.values, strict=True)
        ]
        return np.stack(columns, axis=1) if columns else np.zeros((items.height, 0), dtype=np.int64)

    def rows_in(self, other: ItemFields) -> Int64s:
        """[rows] each row's row in another vocabulary; -1 where that has none.

        A value is the same value. A range of prices is the other's range that its middle lies in.
        """
        found = np.full(self.num_rows, -1, dtype=np.int64)
        found[UNKNOWN] = UNKNOWN
        theirs = dict(zip(other.names, other.values, strict=True))
        middles = _middles(self.price_bounds)
        for name, values in zip(self.names, self.values, strict=True):
            for value, row in values.items():
                if name == Col.price:
                    value = int(np.searchsorted(other.price_bounds, middles[int(value)]))
                found[row] = theirs.get(name, {}).get(value, -1)
        return found


def _middles(bounds: Float64s) -> Float64s:
    """[ranges] a price inside each range; the outer ones are taken to be as wide as the next."""
    if not len(bounds):
        return np.zeros(1)
    gaps = np.diff(bounds) if len(bounds) > 1 else np.ones(1)
    edges = np.concatenate([[bounds[0] - gaps[0]], bounds, [bounds[-1] + gaps[-1]]])
    return (edges[1:] + edges[:-1]) / 2


def _values(column: pl.Series, price_bounds: Float64s) -> pl.Series:
    """A field's values, null where unknown; of a price the number of its range."""
    if column.name != Col.price:
        return column
    prices = column.cast(pl.Float64).fill_nan(None)
    ranges = pl.Series(np.searchsorted(price_bounds, prices.fill_null(0).to_numpy()))
    known = pl.when(prices.is_not_null()).then(ranges)
    return pl.select(known.alias(column.name)).to_series()
