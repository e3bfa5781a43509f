"""Of several rows of an item, the newest counts."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from canonical_logs import NOON, adapter, event_columns, write

from recsys.schema import Col


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
