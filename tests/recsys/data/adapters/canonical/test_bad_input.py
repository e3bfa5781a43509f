"""Files that are missing, empty, packed or corrupt."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from canonical_logs import adapter, event_columns, events, write

from recsys.errors import DataError
from recsys.schema import EVENTS


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
