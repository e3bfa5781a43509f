"""What items share, and their numbers: the groups that rates are counted by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.outcome_heads.rates.keys import NONE, UInt64s, keys_of
from recsys.schema import Col

#: Values of an item's field that count, e.g. of its tags.
MAX_VALUES: Final = 4


@dataclass(frozen=True)
class ItemFields:
    """The items by row.

    Legend: I items, V values of a field.

    Attributes:
        keys: [I] see `keys`.
        groups: field -> [I, V] keys of its values, `NONE` where there are fewer.
        numbers: name -> [I] such as the price; NaN where unknown.
        rows: id -> row.
    """

    keys: UInt64s
    groups: dict[str, UInt64s]
    numbers: dict[str, NDArray[np.float32]]
    rows: pl.DataFrame

    @classmethod
    def of(
        cls, items: pl.DataFrame, fields: Sequence[str], numbers: Sequence[str] = (Col.price,)
    ) -> ItemFields:
        """Take the fields of a table of items.

        A number is a field too: its bands are half an octave wide, whatever the catalogue.

        Args:
            items: with `item_id`; a row an item, in the catalogue's order.
            fields: columns of strings (those of `tags` are separated by commas) or lists of them.
            numbers: columns of numbers; one that is absent or all null is left out.
        """
        ids = items[Col.item].cast(pl.String)
        groups = {name: _values(name, items[name]) for name in fields if name in items}
        kept: dict[str, NDArray[np.float32]] = {}
        for name in numbers:
            if name in items and items[name].null_count() < items.height:
                kept[name] = items[name].cast(pl.Float32).fill_null(float("nan")).to_numpy()
                groups[f"{name} band"] = keys_of(f"{name} band", _bands(kept[name]))[:, None]
        rows = pl.DataFrame({Col.item: ids}).with_row_index(Col.item_row)
        return cls(keys_of("item", ids), groups, kept, rows)

    def rows_of(self, ids: pl.Series) -> NDArray[Any]:
        """[N] row of each id, -1 where the item is not here."""
        asked = ids.cast(pl.String).alias(Col.item).to_frame()
        found = asked.join(self.rows, on=Col.item, how="left", maintain_order="left")
        return found[Col.item_row].cast(pl.Int64).fill_null(-1).to_numpy()


def _values(name: str, column: pl.Series) -> UInt64s:
    """[I, V] keys."""
    if column.dtype != pl.List:
        text = column.cast(pl.String)
        column = text.str.split(",") if name == Col.tags else text.reshape((-1, 1)).arr.to_list()
    frame = pl.DataFrame({"value": column.list.head(MAX_VALUES)}).with_row_index("row")
    frame = frame.explode("value").with_columns(pl.col("value").str.strip_chars())
    frame = frame.filter(pl.col("value").is_not_null() & (pl.col("value") != ""))
    place = frame.select(pl.int_range(pl.len()).over("row").alias("at"))["at"].to_numpy()
    found = np.full((len(column), max(1, int(place.max()) + 1 if len(place) else 1)), NONE)
    found[frame["row"].to_numpy(), place] = keys_of(name, frame["value"])
    return found


def _bands(numbers: NDArray[np.float32]) -> pl.Series:
    """[I] half octaves; null where unknown or not positive."""
    known = np.nan_to_num(numbers) > 0
    band = np.floor(2 * np.log2(np.where(known, numbers, 1))).astype(np.int64)
    return pl.Series(band).set(pl.Series(~known), None)
