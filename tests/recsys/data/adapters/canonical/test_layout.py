"""Where the files may lie: one, many, Hive's folders, a URI."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from canonical_logs import NOON, adapter, event_columns, events, write

from recsys.data.adapters import base
from recsys.errors import DataError
from recsys.schema import EVENTS, ITEMS, Col


class TestLayout:
    def test_a_single_file(self, tmp_path: Path) -> None:
        write(tmp_path / "events.parquet", event_columns())
        read = events(tmp_path)
        assert read.columns == EVENTS.names
        assert read[Col.user].to_list() == ["u1", "u2"]
        assert read[Col.price].to_list() == [None, None]

    def test_a_folder_of_files_whatever_their_depth(self, tmp_path: Path) -> None:
        write(tmp_path / "events" / "2024" / "b.parquet", event_columns(user_id=["b1", "b2"]))
        write(tmp_path / "events" / "a.parquet", event_columns(user_id=["a1", "a2"]))
        for hidden in ("_old.parquet", ".c.parquet", "notes.txt"):
            (tmp_path / "events" / hidden).write_bytes(b"no Parquet")
        assert sorted(events(tmp_path)[Col.user]) == ["a1", "a2", "b1", "b2"]

    def test_hive_folders_give_their_column(self, tmp_path: Path) -> None:
        columns = event_columns()
        del columns[Col.event_type]
        for name in ("click", "add%5Fto%5Fcart"):
            write(
                tmp_path / "events" / f"event_type={name}" / "date=2024-01-01" / "0.parquet",
                columns,
            )
        assert sorted(events(tmp_path)[Col.event_type]) == ["add_to_cart"] * 2 + ["click"] * 2

    def test_a_file_that_holds_the_column_itself_is_believed(self, tmp_path: Path) -> None:
        write(tmp_path / "events" / "event_type=click" / "0.parquet", event_columns())
        assert events(tmp_path)[Col.event_type].to_list() == ["view", "purchase"]

    @pytest.mark.parametrize("key", [Col.user, Col.session, Col.price])
    def test_hive_s_default_folder_holds_the_rows_without_a_value(
        self, key: str, tmp_path: Path
    ) -> None:
        columns = event_columns()
        columns.pop(key, None)
        write(tmp_path / "events" / f"{key}=__HIVE_DEFAULT_PARTITION__" / "0.parquet", columns)
        assert events(tmp_path)[key].to_list() == [None, None]

    def test_a_folders_value_must_be_of_the_columns_type(self, tmp_path: Path) -> None:
        write(tmp_path / "events" / "price=cheap" / "0.parquet", event_columns())
        with pytest.raises(DataError, match="price=cheap") as error:
            events(tmp_path)
        assert (error.value.field, error.value.value) == ("price", "cheap")

    def test_a_large_file_is_read_in_parts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        many = event_columns(
            user_id=[f"u{n}" for n in range(10)], item_id=["i"] * 10, event_type=["view"] * 10,
            timestamp=pa.array([NOON] * 10, pa.timestamp("us", "UTC")),
        )  # fmt: skip
        write(tmp_path / "events.parquet", many, row_group_size=2)
        monkeypatch.setattr(base, "ROWS_PER_PART", 4)
        parts = adapter(tmp_path).parts()
        assert [part.num_rows for part in parts] == [4, 4, 2]
        assert events(tmp_path)[Col.user].to_list() == [f"u{n}" for n in range(10)]

    def test_items_may_lie_in_several_files(self, tmp_path: Path) -> None:
        write(tmp_path / "items" / "a.parquet", {"item_id": ["i1"], "title": ["cup"]})
        write(tmp_path / "items" / "b.parquet", {"item_id": ["i2"], "brand": ["acme"]})
        read = adapter(tmp_path).read_items().table
        assert read.columns == ITEMS.names
        assert read.select("item_id", "title", "brand").rows() == [
            ("i1", "cup", None), ("i2", None, "acme"),
        ]  # fmt: skip

    def test_a_uri_is_a_source_too(self, tmp_path: Path) -> None:
        write(tmp_path / "events.parquet", event_columns())
        opened = adapter(tmp_path.as_uri())
        assert [part.num_rows for part in opened.parts()] == [2]
