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

from recsys.config import Data
from recsys.data.adapters import base, foreign, open_adapter
from recsys.data.adapters.base import split_into_parts
from recsys.data.adapters.canonical import CanonicalAdapter
from recsys.errors import DataError
from recsys.schema import EVENTS, ITEMS, Col

NOON = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)


def event_columns(**changes: object) -> dict[str, object]:
    """Two events, as columns."""
    return {
        Col.user: ["u1", "u2"],
        Col.item: ["i1", "i2"],
        Col.event_type: ["view", "purchase"],
        Col.timestamp: pa.array([NOON, NOON], pa.timestamp("us", "UTC")),
        **changes,
    }


def write(path: Path, columns: dict[str, object], row_group_size: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def adapter(folder: Path | str, **data: object) -> CanonicalAdapter:
    cuts = {"valid": "2024-02-01", "test": "2024-03-01"}
    opened = open_adapter(Data.model_validate({"source": str(folder), "cuts": cuts, **data}))
    assert isinstance(opened, CanonicalAdapter)
    return opened


def events(folder: Path, **data: object) -> pl.DataFrame:
    opened = adapter(folder, **data)
    return pl.concat([opened.read_events(part) for part in opened.parts()])


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


class TestSnapshots:
    @staticmethod
    def titles(folder: Path, **data: object) -> tuple[dict[str, str], int]:
        items = adapter(folder, **data).read_items()
        rows = items.table.select(Col.item, Col.title).rows()
        assert len(dict(rows)) == len(rows)
        return dict(rows), items.num_superseded

    def test_the_newest_folder_s_row_counts(self, tmp_path: Path) -> None:
        for day, ids in (("2024-01-09", ["a", "b"]), ("2024-01-10", ["b", "c"]),
                         ("__HIVE_DEFAULT_PARTITION__", ["a", "d"])):  # fmt: skip
            titles = [f"{each} of {day}" for each in ids]
            write(tmp_path / "items" / f"dt={day}" / "0.parquet", {"item_id": ids, "title": titles})
        titles, num_superseded = self.titles(tmp_path)
        assert titles == {
            "a": "a of 2024-01-09", "b": "b of 2024-01-10", "c": "c of 2024-01-10",
            "d": "d of __HIVE_DEFAULT_PARTITION__",
        }  # fmt: skip
        assert num_superseded == 2

    def test_doubles_of_one_snapshot_are_left_to_the_checks(self, tmp_path: Path) -> None:
        for version, title in (("9", "old"), ("10", "new")):
            for name in ("0", "1"):
                write(
                    tmp_path / "items" / f"version={version}" / f"{name}.parquet",
                    {"item_id": ["a"], "title": [title]},
                )
        items = adapter(tmp_path).read_items()
        assert items.table[Col.title].to_list() == ["new", "new"] and items.num_superseded == 2

    def test_folders_of_our_own_columns_are_no_snapshots(self, tmp_path: Path) -> None:
        for brand in ("acme", "zeta"):
            write(tmp_path / "items" / f"brand={brand}" / "lang=en" / "0.parquet",
                  {"item_id": ["a"], "title": ["cup"]})  # fmt: skip
            write(tmp_path / "items" / "lang=en" / f"make={brand}" / "0.parquet",
                  {"item_id": ["b"], "title": ["cup"]})  # fmt: skip
        read = adapter(tmp_path, columns={"items": {Col.category: "make"}}).read_items()
        assert sorted(read.table[Col.item]) == ["a", "a", "b", "b"]
        assert read.num_superseded == 0

    @pytest.mark.parametrize(
        "stamps",
        [
            pa.array([2, 10, None, 10], pa.int32()),
            pa.array([2.5, 10.5, float("nan"), 10.5]),
            pa.array([Decimal(2), Decimal(10), None, Decimal(10)], pa.decimal128(9, 0)),
            pa.array(["2", "10", None, "10"]),
            pa.array(["2024-01-01", "2024-01-02", None, "2024-01-02"]).dictionary_encode(),
            pa.array([dt.date(2023, 1, 1), NOON.date(), None, NOON.date()]),
            pa.array([0, 10**13, None, 10**13], pa.int64()).cast(pa.timestamp("us")),
        ],
    )
    def test_a_column_may_say_what_is_newer(self, stamps: pa.Array, tmp_path: Path) -> None:
        """Whatever the folders say; here they say the contrary."""
        rows = {"item_id": ["a", "a", "b", "c"], "title": ["old", "new", "b", "c"]}
        write(tmp_path / "items" / "dt=2" / "0.parquet", {k: v[:1] for k, v in rows.items()}
              | {"at": stamps[:1]})  # fmt: skip
        write(tmp_path / "items" / "dt=1" / "0.parquet", {k: v[1:] for k, v in rows.items()}
              | {"at": stamps[1:]})  # fmt: skip
        write(tmp_path / "items" / "dt=3" / "0.parquet", {"item_id": ["c"], "title": ["no time"]})
        titles, num_superseded = self.titles(tmp_path, items_by="at")
        assert titles == {"a": "new", "b": "b", "c": "c"} and num_superseded == 2
        assert adapter(tmp_path, items_by="at").scan().problems[1:] == []

    def test_it_may_be_a_column_of_ours_or_a_folder(self, tmp_path: Path) -> None:
        for price, title in ((9.0, "old"), (10.0, "new")):
            write(tmp_path / "items" / f"rev={price:.0f}" / "0.parquet",
                  {"item_id": ["a"], "title": [title], "price": [price]})  # fmt: skip
        for by in ("price", "rev"):
            assert self.titles(tmp_path, items_by=by) == ({"a": "new"}, 1)

    @pytest.mark.parametrize(
        ("by", "changes", "problem"),
        [
            ("updated", {}, "no items file has this column"),
            ("flag", {"flag": [True]}, "values of type bool do not say"),
            ("mix", {"mix": ["2024"]}, "values of type int64, string do not say"),
        ],
    )
    def test_a_column_that_cannot_say_it_is_refused(
        self, by: str, changes: dict[str, object], problem: str, tmp_path: Path
    ) -> None:
        row = {"item_id": ["a"], "title": ["cup"], "updated_at": [1]}
        write(tmp_path / "events.parquet", event_columns())
        write(tmp_path / "items" / "0.parquet", row | {"mix": [1]})
        write(tmp_path / "items" / "1.parquet", row | changes)
        (error,) = adapter(tmp_path, items_by=by).scan().problems
        assert problem in error.problem
        assert "data.items_by" in f"{error.field} {error.fix}"
        assert by != "updated" or "did you mean `updated_at`?" in error.fix


class TestColumns:
    def test_columns_are_read_under_the_names_that_the_recipe_gives(self, tmp_path: Path) -> None:
        columns = event_columns()
        own = {"WHO": columns[Col.user], "sku": columns[Col.item], "at": columns[Col.timestamp]}
        write(tmp_path / "events" / "kind=view" / "own.parquet", own)
        write(tmp_path / "events" / "ours.parquet", event_columns(user_id=["v1", "v2"]))
        write(tmp_path / "items.parquet", {"sku": [1], "name": ["cup"]})
        mapping = {
            "events": {Col.user: "WHO", Col.item: "sku", Col.timestamp: "at",
                       Col.event_type: "kind"},
            "items": {Col.item: "sku", Col.title: "name", Col.description: "name"},
        }  # fmt: skip
        read = events(tmp_path, columns=mapping)
        assert read.columns == EVENTS.names
        assert read.select(Col.user, Col.item, Col.event_type).rows() == [
            ("u1", "i1", "view"), ("u2", "i2", "view"),
            ("v1", "i1", "view"), ("v2", "i2", "purchase"),
        ]  # fmt: skip
        items = adapter(tmp_path, columns=mapping).read_items().table
        assert items.select(Col.item, Col.title, Col.description).rows() == [("1", "cup", "cup")]
        assert adapter(tmp_path, columns=mapping).scan().problems == []

    def test_a_day_s_folder_may_be_the_time(self, tmp_path: Path) -> None:
        columns = event_columns()
        del columns[Col.timestamp]
        write(tmp_path / "events" / "dt=2024-01-01" / "a.parquet", columns)
        read = events(tmp_path, columns={"events": {Col.timestamp: "dt"}})
        assert read[Col.timestamp].to_list() == [NOON.replace(hour=0)] * 2

    def test_folders_of_another_type_are_told_once_and_hide_no_more(self, tmp_path: Path) -> None:
        columns = event_columns()
        del columns[Col.timestamp]
        for name in ("20240101", "20240102", "2024-01-03"):
            write(tmp_path / "events" / f"dt={name}" / "a.parquet", columns)
        write(tmp_path / "items.parquet", {"item_id": ["i1"], "title": ["cup"]})
        opened = adapter(tmp_path, columns={"events": {Col.timestamp: "dt"}})
        scan = opened.scan()
        (error,) = scan.problems
        assert (error.field, error.value) == (Col.timestamp, "20240101")
        assert str(error).startswith(f"{tmp_path}/events/dt=20240101/a.parquet (and 1 more files)")
        read = [opened.read_needed(part).columns for part in scan.parts]
        assert [Col.timestamp in names for names in read] == [True, False, False]

    def test_all_that_is_wrong_is_told_once_for_files_that_share_it(self, tmp_path: Path) -> None:
        columns = event_columns(price=["1", "2"])
        del columns[Col.item]
        for name in "abc":
            write(tmp_path / "events" / f"{name}.parquet", columns)
        write(tmp_path / "events" / "d.parquet", event_columns(position=[1.5, 2.5]))
        write(tmp_path / "items.parquet", {"ITEM_ID": ["i1"], "NAME": ["cup"]})
        mapping = {"events": {Col.session: "sesion"}}
        scan = adapter(tmp_path, columns=mapping).scan()
        found = [(Path(str(each.where)).name, each.field) for each in scan.problems]
        assert found == [
            ("a.parquet (and 2 more files of these columns)", Col.item),
            ("a.parquet (and 2 more files of these columns)", Col.price),
            ("d.parquet", Col.position),
            ("recipe", "data.columns.events.session_id"),
            ("items.parquet", Col.item),
            (f"{tmp_path.name} (items)", "data.text_fields"),
        ]
        assert "{items: {title: NAME}}" in scan.problems[-1].fix

    def test_a_column_that_only_capitals_hide_is_told(self, tmp_path: Path) -> None:
        write(tmp_path / "events.parquet", event_columns(Session_Id=["s", "s"]))
        write(tmp_path / "items.parquet", {"item_id": ["i1"], "title": ["cup"]})
        scan = adapter(tmp_path).scan()
        assert ["`Session_Id` is not read" in line for line in scan.warnings] == [True]


@pytest.mark.parametrize(
    ("group_rows", "parts"),
    [
        ([], []),
        ([0], []),
        ([3], [(0, 1, 3)]),
        ([2_000_000, 1], [(0, 1, 2_000_000), (1, 2, 1)]),
        ([9_000_000, 5], [(0, 1, 9_000_000), (1, 2, 5)]),
        ([1_000_000] * 5, [(0, 2, 2_000_000), (2, 4, 2_000_000), (4, 5, 1_000_000)]),
    ],
)
def test_parts_are_whole_row_groups(
    group_rows: list[int], parts: list[tuple[int, int, int]]
) -> None:
    found = split_into_parts("f", group_rows)
    assert [(part.first_group, part.last_group, part.num_rows) for part in found] == parts


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


class TestBadInput:
    @pytest.mark.parametrize("missing", EVENTS.names[:4])
    def test_a_missing_column_is_named_beside_those_there(
        self, tmp_path: Path, missing: str
    ) -> None:
        columns = event_columns()
        del columns[missing]
        write(tmp_path / "events.parquet", columns)
        with pytest.raises(DataError, match="missing column") as error:
            events(tmp_path)
        assert error.value.field == missing
        assert all(name in str(error.value.value) for name in columns)

    def test_items_without_ids_are_refused(self, tmp_path: Path) -> None:
        write(tmp_path / "items.parquet", {"title": ["cup"]})
        with pytest.raises(DataError, match=r"items.parquet: \[item_id\] missing column"):
            adapter(tmp_path).read_items()

    @pytest.mark.parametrize("make", [False, True])
    def test_an_empty_or_missing_folder(self, tmp_path: Path, make: bool) -> None:
        folder = tmp_path / "log"
        if make:
            (folder / "events").mkdir(parents=True)
        with pytest.raises(DataError, match="no Parquet file found") as error:
            adapter(folder).parts()
        assert str(error.value.where) == str(folder)
        assert error.value.field == "data.source"

    def test_files_without_rows(self, tmp_path: Path) -> None:
        pq.write_table(EVENTS.empty_table(), tmp_path / "events.parquet")
        with pytest.raises(DataError, match="the log holds no rows"):
            adapter(tmp_path).parts()

    @pytest.mark.parametrize("content", [b"", b"PAR1", b"user_id,item_id\n" * 100])
    def test_a_file_that_is_no_parquet(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "events.parquet").write_bytes(content)
        with pytest.raises(DataError, match="not a readable Parquet file") as error:
            adapter(tmp_path).parts()
        assert str(error.value.where).endswith("events.parquet")

    @pytest.mark.parametrize(
        ("content", "problem", "fix"),
        [
            (b"", "it is empty (0 bytes)", "write the file again"),
            (b"\x1f\x8b\x08....", "it is a gzip file", "gunzip"),
            (b"\x28\xb5\x2f\xfd....", "it is a zstd file", "unzstd"),
            (b"PK\x03\x04....", "it is a zip file", "unzip"),
        ],
    )
    def test_a_file_that_is_packed_or_empty_is_called_so(
        self, content: bytes, problem: str, fix: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "events" / "a.parquet.gz"
        path.parent.mkdir()
        path.write_bytes(content)
        with pytest.raises(DataError) as error:
            adapter(tmp_path).parts()
        assert str(error.value.where) == str(path)
        assert problem in error.value.problem and fix in error.value.fix

    def test_a_scan_tells_what_is_wrong_with_both_tables(self, tmp_path: Path) -> None:
        write(tmp_path / "events" / "a.parquet", event_columns())
        (tmp_path / "events" / "b.csv").write_bytes(b"")
        scan = adapter(tmp_path).scan()
        assert [part.num_rows for part in scan.parts] == [2]
        assert scan.left_out == {"events": {".csv": 1}}
        assert ["items.parquet" in str(problem) for problem in scan.problems] == [True]

    def test_a_file_spoilt_in_its_middle(self, tmp_path: Path) -> None:
        path = write(tmp_path / "events.parquet", event_columns())
        content = bytearray(path.read_bytes())
        content[4:60] = b"\xff" * 56
        path.write_bytes(content)
        with pytest.raises(DataError, match="corrupt Parquet data") as error:
            events(tmp_path)
        assert str(error.value.where).endswith("events.parquet")

    def test_a_source_of_no_known_kind(self) -> None:
        with pytest.raises(DataError, match="cannot open the source") as error:
            adapter("carrier-pigeon://loft/log")
        assert error.value.field == "data.source"
