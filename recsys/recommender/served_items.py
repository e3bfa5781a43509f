"""The catalogue as it is served: ids, titles, and the fields that filters and caps read.

Items may be added, and fields changed, while it is served: each makes new `ServedItems`.

Legend: I items, added ones included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.arrays import Bools, Int32s
from recsys.artifacts.bundle import ITEMS as ITEMS_FILE
from recsys.artifacts.bundle import Bundle
from recsys.errors import BundleError
from recsys.ranking.rerank import NO_CATEGORY
from recsys.schema import ITEMS, Col
from recsys.storage.reading import reading

#: Columns of an added item.
ADDED: Final = pl.Schema(
    {
        Col.item: pl.String,
        Col.title: pl.String,
        Col.brand: pl.String,
        Col.category: pl.String,
        Col.price: pl.Float64,
        Col.available: pl.Boolean,
    }
)
#: Columns that filters, caps and availability read.
FILTERED: Final = (Col.category, Col.brand, Col.price, Col.available)


class ServedItems:
    """A bundle's items and those added, by row.

    Args:
        file: the bundle's items.
        row_of: row by id, of the bundle's items.
        added_row_of: row by id, of the added ones.
        ids: [I].
        titles: [I].
        filtered: I rows of the columns `FILTERED`.

    Attributes:
        category_codes: [I] int64, equal for equal categories; `NO_CATEGORY` where unknown.
    """

    def __init__(
        self,
        file: Path,
        row_of: dict[str, int],
        added_row_of: dict[str, int],
        ids: list[str],
        titles: list[str | None],
        filtered: pl.DataFrame,
    ) -> None:
        self._file, self._row_of, self._added_row_of = file, row_of, added_row_of
        self._ids, self._titles, self._filtered = ids, titles, filtered
        codes = filtered[Col.category].cast(pl.Categorical).to_physical().cast(pl.Int64)
        self.category_codes = codes.fill_null(NO_CATEGORY).to_numpy()
        self._price = filtered[Col.price].to_numpy()
        available = filtered[Col.available].fill_null(True).to_numpy()
        self._available = None if available.all() else available

    @classmethod
    def of(cls, bundle: Bundle) -> ServedItems:
        """The items of a bundle."""
        items = bundle.items
        ids, titles = items[Col.item].to_list(), items[Col.title].to_list()
        row_of = {item_id: row for row, item_id in enumerate(ids)}
        return cls(bundle.folder / ITEMS_FILE, row_of, {}, ids, titles, items.select(FILTERED))

    def __len__(self) -> int:
        return len(self._ids)

    def with_added(self, fields: pl.DataFrame) -> ServedItems:
        """These items and M more, in rows I, I + 1, ...

        Args:
            fields: the columns `ADDED`; ids that are not held, each once.
        """
        assert not self._added_row_of
        columns = fields.match_to_schema(ADDED)
        ids = columns[Col.item].to_list()
        added_row_of = {item_id: row for row, item_id in enumerate(ids, len(self))}
        assert len(added_row_of) == len(ids) and (self.rows_of(ids) < 0).all()
        filtered = pl.concat(
            [self._filtered, columns.select(FILTERED)], how="vertical_relaxed", rechunk=True
        )
        return ServedItems(
            self._file, self._row_of, added_row_of, self._ids + ids,
            self._titles + columns[Col.title].to_list(), filtered,
        )  # fmt: skip

    def with_changes(self, changes: Mapping[str, Mapping[str, Any]]) -> ServedItems:
        """These items with other titles and `FILTERED` fields; itself if nothing changes.

        Args:
            changes: fields by item id; ids that the bundle does not hold are ignored.
        """
        rows = {self._row_of[item_id]: item_id for item_id in changes if item_id in self._row_of}
        if not rows:
            return self
        columns = {}
        for name in self._filtered.columns:
            places = [row for row, item_id in rows.items() if name in changes[item_id]]
            values = [changes[rows[row]][name] for row in places]
            columns[name] = self._filtered[name].scatter(places, values)
        titles = self._titles.copy()
        for row, item_id in rows.items():
            if Col.title in changes[item_id]:
                titles[row] = changes[item_id][Col.title]
        return ServedItems(
            self._file, self._row_of, self._added_row_of, self._ids, titles,
            pl.DataFrame(columns, schema=self._filtered.schema),
        )  # fmt: skip

    def fields_in_bundle(self, item_id: str) -> dict[str, Any]:
        """The bundle's own fields of one of its items, by the names of `ITEMS`.

        Raises:
            BundleError: its file has gone.
        """
        with reading(self._file, "restore the bundle from a copy", BundleError):
            row = pl.scan_parquet(self._file, glob=False).slice(self._row_of[item_id], 1)
            found = row.select(ITEMS.names).collect().row(0, named=True)
            if found[Col.item] != item_id:
                raise ValueError("of another bundle")
            return found

    def rows_of(self, item_ids: Sequence[str]) -> Int32s:
        """Catalogue rows; -1 for an unknown id."""
        found = map(self._row_of.get, item_ids, repeat(-1))
        rows = np.fromiter(found, dtype=np.int32, count=len(item_ids))
        if self._added_row_of:
            for place in np.flatnonzero(rows < 0).tolist():
                rows[place] = self._added_row_of.get(item_ids[place], -1)
        return rows

    def in_bundle(self, item_id: str) -> bool:
        """Whether the bundle's own catalogue holds the item: it was not added."""
        return item_id in self._row_of

    def item_id(self, row: int) -> str:
        """The item's id."""
        return str(self._ids[row])

    def title(self, row: int) -> str:
        """The item's title, empty if it has none."""
        return str(self._titles[row] or "")

    def names(self, rows: Sequence[int]) -> list[tuple[str, str]]:
        """Ids and titles of some items."""
        ids, titles = self._ids, self._titles
        return [(ids[row], titles[row] or "") for row in rows]

    def categories_of(self, rows: Int32s) -> list[str]:
        """Names of the categories of some items, where they have one."""
        return self._filtered[Col.category].gather(rows).drop_nulls().to_list()

    def allowed(
        self,
        *,
        category: Sequence[str] | None = None,
        brand: Sequence[str] | None = None,
        min_price: float | None = None,
        max_price: float | None = None,
    ) -> Bools | None:
        """[I] the items that pass the filters and are available; None if that is all of them."""
        masks = [] if self._available is None else [self._available]
        if category is not None:
            masks.append(
                self._filtered[Col.category].is_in(list(category)).fill_null(False).to_numpy()
            )
        if brand is not None:
            masks.append(self._filtered[Col.brand].is_in(list(brand)).fill_null(False).to_numpy())
        # An item without a price passes no price filter: the comparison with NaN is false.
        if min_price is not None:
            masks.append(self._price >= min_price)
        if max_price is not None:
            masks.append(self._price <= max_price)
        return np.logical_and.reduce(masks) if masks else None
