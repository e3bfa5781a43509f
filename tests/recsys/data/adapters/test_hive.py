from __future__ import annotations

import pyarrow as pa
import pytest

from recsys.data.adapters.hive import folder_column, folder_keys
from recsys.errors import DataError


def test_keys_are_those_of_the_folders_below_the_root() -> None:
    path = "b=0/log/events/dt=2024-01-01/plain/event_type=add%5Fto%5Fcart/x=1.parquet"
    assert folder_keys(path, "b=0/log") == {"dt": "2024-01-01", "event_type": "add_to_cart"}
    assert list(folder_keys("log/events/b=1/a=2/f", "log")) == ["b", "a"]
    assert folder_keys("log/events/f.parquet", "log") == {}


def test_hive_s_name_for_null_is_null_and_no_other() -> None:
    keys = folder_keys("log/a=__HIVE_DEFAULT_PARTITION__/b=/c=null/f", "log")
    assert keys == {"a": None, "b": "", "c": "null"}


def test_a_value_is_of_the_column_s_type() -> None:
    price = pa.field("price", pa.float64())
    assert folder_column("1.5", price, 2, where="f").to_pylist() == [1.5, 1.5]
    assert folder_column(None, price, 2, where="f").to_pylist() == [None, None]
    assert folder_column("7", pa.field("item_id", pa.string()), 1, where="f").to_pylist() == ["7"]
    with pytest.raises(DataError, match="a folder's value is no double") as error:
        folder_column("cheap", price, 0, where="f")
    assert (error.value.where, error.value.field, error.value.value) == ("f", "price", "cheap")
