"""Types that can be read as ours, and those that cannot."""

from __future__ import annotations

import datetime as dt
import functools
from decimal import Decimal
from pathlib import Path
from unittest.mock import patch
from uuid import UUID

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from canonical_logs import NOON, adapter, event_columns, events, write

from recsys.data.adapters import foreign
from recsys.errors import DataError
from recsys.schema import EVENTS, Col


class TestTypes:
    def read(self, folder: Path, **changes: object) -> pl.DataFrame:
        write(folder / "events.parquet", event_columns(**changes))
        return events(folder)

    def test_integer_ids_become_text(self, tmp_path: Path) -> None:
        read = self.read(
            tmp_path, user_id=[7, 8], item_id=pa.array([1, None], pa.int32()), session_id=[5, 5]
        )
        assert read.select(Col.user, Col.item, Col.session).rows() == [
            ("7", "1", "5"), ("8", None, "5"),
        ]  # fmt: skip

    @pytest.mark.parametrize("has_arrow_schema", [True, False])
    def test_ids_of_any_type_that_has_a_spelling(
        self, has_arrow_schema: bool, tmp_path: Path
    ) -> None:
        ids = {
            Col.user: pa.array([UUID(int=7).bytes, None], pa.uuid()),
            Col.item: pa.array([Decimal(7), None], pa.decimal128(38, 0)),
            Col.session: pa.array([b"s1", b"\xff"], pa.binary()),
            Col.request: pa.array([b"ab", b"cd"], pa.binary(2)).dictionary_encode(),
        }
        pq.write_table(
            pa.table(event_columns(**ids)), tmp_path / "events.parquet",
            store_schema=has_arrow_schema,
        )  # fmt: skip
        read = events(tmp_path)
        assert read.select(*ids).rows() == [
            ("00000000-0000-0000-0000-000000000007", "7", "s1", "ab"), (None, None, None, "cd"),
        ]  # fmt: skip
        assert read[Col.unreadable].to_list() == [
            None, "session_id: a value cannot be read as string (UTF-8)",
        ]  # fmt: skip

    def test_uuids_that_arrow_reads_as_bytes(self, tmp_path: Path) -> None:
        """Arrow before 21 does, unless the file tells Arrow's own schema."""
        ids = pa.array([UUID(int=7).bytes, None], pa.uuid())
        path = write(tmp_path / "events.parquet", event_columns(user_id=ids))
        bytes_only = functools.partial(pq.ParquetFile, arrow_extensions_enabled=False)
        pq.write_table(pa.table(event_columns(user_id=ids)), path, store_schema=False)
        with patch.object(foreign, "open_foreign", bytes_only):
            assert events(tmp_path)[Col.user].to_list() == [str(UUID(int=7)), None]

    @pytest.mark.parametrize(
        ("kind", "values", "why"),
        [
            (pa.float64(), [7.0, 8.0], "floats above 2^53 are rounded"),
            (pa.decimal128(9, 2), [Decimal(7), Decimal(8)], "`7` and `7.00` are two spellings"),
            (pa.bool_(), [True, False], "bool where string is needed"),
            (pa.list_(pa.string()), [["a"], ["b"]], "list<"),
        ],
    )
    @pytest.mark.parametrize("name", [Col.user, Col.item, Col.session, Col.request])
    def test_other_ids_are_refused_with_the_reason(
        self, name: str, kind: pa.DataType, values: list[object], why: str, tmp_path: Path
    ) -> None:
        with pytest.raises(DataError, match="wrong type") as error:
            self.read(tmp_path, **{name: pa.array(values, kind)})
        assert error.value.field == name and why in error.value.problem
        assert "string, integer or UUID" in error.value.fix

    def test_text_may_be_bytes_in_every_column(self, tmp_path: Path) -> None:
        """Impala writes strings so, and Spark's files of old."""
        read = self.read(tmp_path, event_type=[b"view", b"\xff"])
        assert read[Col.event_type].to_list() == ["view", None]
        assert "event_type: b'\\xff' cannot be read" in read[Col.unreadable][1]
        write(tmp_path / "items.parquet", {"item_id": [b"i1"], "title": [b"cup"]})
        assert adapter(tmp_path).read_items().table.select("item_id", "title").rows() == [
            ("i1", "cup")
        ]

    @pytest.mark.parametrize(
        "kind",
        [
            pa.timestamp("us"),  # without a zone: UTC
            pa.timestamp("ns"),
            pa.timestamp("s", "UTC"),
            pa.timestamp("ms", "Asia/Tokyo"),  # the zone is how it is shown, not when it was
        ],
    )
    def test_times_of_any_kind_are_utc(self, tmp_path: Path, kind: pa.DataType) -> None:
        moment = NOON if kind.tz else NOON.replace(tzinfo=None)
        read = self.read(tmp_path, timestamp=pa.array([moment, None], kind))
        assert read[Col.timestamp].to_list() == [NOON, None]

    def test_spark_s_int96_is_read_over_all_years(self, tmp_path: Path) -> None:
        far = [dt.datetime(2600, 6, 1), dt.datetime(1, 1, 1)]
        for name, column in (("events", Col.timestamp), ("items", Col.available_from)):
            table = pa.table(event_columns(**{column: far}))
            pq.write_table(
                table, tmp_path / f"{name}.parquet", use_deprecated_int96_timestamps=True
            )
        expected = [each.replace(tzinfo=dt.UTC) for each in far]
        assert events(tmp_path)[Col.timestamp].to_list() == expected
        assert adapter(tmp_path).read_items().table[Col.available_from].to_list() == expected

    def test_a_time_that_microseconds_cannot_hold_is_told_beside_its_row(
        self, tmp_path: Path
    ) -> None:
        beyond = pa.array([10**13, 0], pa.int64()).cast(pa.timestamp("s"))
        read = self.read(tmp_path, timestamp=beyond)
        assert read[Col.timestamp].is_null().to_list() == [True, False]
        assert read[Col.unreadable].to_list() == [
            "timestamp: 318857-05-20T17:46:40.000Z cannot be read as timestamp[us, tz=UTC]", None,
        ]  # fmt: skip
        write(tmp_path / "items" / "a.parquet", {"item_id": ["i1"], "title": ["cup"]})
        write(tmp_path / "items" / "b.parquet", {"item_id": ["i2", "i3"], "available_from": beyond})
        told = adapter(tmp_path).read_items().table[Col.unreadable].to_list()
        assert told[0] is told[2] is None and "available_from: 318857" in told[1]

    def test_dates_are_midnights_and_told(self, tmp_path: Path) -> None:
        days = pa.array([NOON.date(), None])
        read = self.read(tmp_path, timestamp=days)
        assert read[Col.timestamp].to_list() == [NOON.replace(hour=0), None]
        write(tmp_path / "items.parquet", {"item_id": ["i1"], "title": ["cup"]})
        (line,) = adapter(tmp_path).scan().warnings
        assert line.startswith("`timestamp` is a date in 1 file (") and "one moment" in line

    @pytest.mark.parametrize(
        "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
    )
    def test_text_of_any_kind(self, tmp_path: Path, kind: pa.DataType) -> None:
        read = self.read(tmp_path, event_type=pa.array(["view", None]).cast(kind))
        assert read[Col.event_type].to_list() == ["view", None]

    def test_a_column_of_nothing_but_nulls(self, tmp_path: Path) -> None:
        read = self.read(tmp_path, event_type=pa.nulls(2), price=pa.nulls(2))
        assert read.select(Col.event_type, Col.price).rows() == [(None, None)] * 2

    def test_numbers_of_any_width(self, tmp_path: Path) -> None:
        read = self.read(
            tmp_path, price=[3, None], quantity=pa.array([1.5, 2.0], pa.float32()),
            position=pa.array([1, 2], pa.int64()),
        )  # fmt: skip
        assert read.select("price", "quantity", "position").rows() == [
            (3.0, 1.5, 1),
            (None, 2.0, 2),
        ]
        assert dict(read.schema) == dict(pl.DataFrame(EVENTS.empty_table()).schema)

    @pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.large_string())])
    def test_a_list_of_tags_is_joined(self, tmp_path: Path, kind: pa.DataType) -> None:
        tags = pa.array([["red", None, "new"], [], None], kind)
        write(tmp_path / "items.parquet", {"item_id": ["a", "b", "c"], "tags": tags})
        assert adapter(tmp_path).read_items().table[Col.tags].to_list() == ["red, new", "", None]

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            (Col.timestamp, ["2024-01-01", "2024-01-02"]),
            (Col.timestamp, [1_700_000_000, 1_700_000_001]),
            (Col.event_type, [1, 2]),
            (Col.user, [1.0, 2.0]),
            (Col.price, ["1.50", "2.00"]),
            (Col.position, [1.0, 2.0]),
        ],
    )
    def test_a_wrong_type_is_refused_with_file_column_and_mend(
        self, tmp_path: Path, name: str, values: list[object]
    ) -> None:
        with pytest.raises(DataError, match="wrong type") as error:
            self.read(tmp_path, **{name: values})
        assert error.value.field == name
        assert str(error.value.where).endswith("events.parquet")
        assert str(EVENTS.field(name).type) in error.value.fix
