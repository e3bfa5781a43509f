"""Columns under the names that the recipe gives, and all that is wrong with them."""

from __future__ import annotations

from pathlib import Path

from canonical_logs import NOON, adapter, event_columns, events, write

from recsys.schema import EVENTS, Col


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
