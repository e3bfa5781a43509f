from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
from pyarrow import fs

from recsys.data.adapters.listing import Listing, list_table, sort_out, told
from recsys.errors import DataError


def place(folder: Path, *paths: str) -> None:
    """Files below the folder; a path that ends with a slash is a folder."""
    for path in paths:
        target = folder / path
        if path.endswith("/"):
            target.mkdir(parents=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"")


def listed(folder: Path, name: str = "events") -> Listing:
    return list_table(fs.LocalFileSystem(), str(folder), name, source="shop/log")


def names(folder: Path) -> list[str]:
    return [path.removeprefix(f"{folder}/") for path in listed(folder).files]


class TestNames:
    @pytest.mark.parametrize(
        "path",
        [
            "part.parquet",
            "PART.PARQUET",
            "a/b/part.parq",
            "part.pq",
            "part.parquet.gzip",
            "part.parquet.gz",
            "part.parquet.snappy",
            "part.snappy.parquet",
            "dt=2024-01-01/part.parquet",
            "_dt=2024-01-01/part.parquet",  # a partition, as Spark takes it
        ],
    )
    def test_data(self, path: str) -> None:
        assert sort_out([path]) == ([path], {})

    @pytest.mark.parametrize(
        "path",
        [
            "_SUCCESS",
            ".part.parquet.crc",
            "_part.parquet",
            ".part.parquet",
            "_delta_log/00000010.checkpoint.parquet",
            "_temporary/0/_temporary/attempt_1/part.parquet",
            "a/.ipynb_checkpoints/part-checkpoint.parquet",
            "dt=1/_tmp/part.parquet",
            "_a=b.parquet",  # a file, not a partition
        ],
    )
    def test_names_that_begin_with_an_underscore_or_a_dot_are_hidden(self, path: str) -> None:
        assert sort_out([path]) == ([], {"hidden": 1})

    def test_others_are_counted_by_suffix(self) -> None:
        left_out = sort_out(["a.csv", "b/c.CSV", "README", "x.json", "y.parquet.bak", "z.pq"])[1]
        assert left_out == {".csv": 2, "no suffix": 1, ".json": 1, ".bak": 1}

    def test_what_was_left_out_in_words(self) -> None:
        assert told({}) == ""
        assert told({"no suffix": 1, ".csv": 2, "hidden": 1200}) == (
            "1,200 files whose names, or their folders', begin with _ or ., 2 .csv files, "
            "1 file without a suffix"
        )


class TestPlaces:
    def test_files_are_sorted_and_the_rest_is_counted(self, tmp_path: Path) -> None:
        place(tmp_path, "events/b.pq", "events/a/z.parquet", "events/_SUCCESS", "events/n.csv")
        found = listed(tmp_path)
        assert names(tmp_path) == ["events/a/z.parquet", "events/b.pq"]
        assert found.left_out == {"hidden": 1, ".csv": 1}

    @pytest.mark.parametrize(
        "file",
        ["events.parquet", "events.PARQUET", "events.pq", "events.parq", "events.parquet.gz"],
    )
    def test_a_single_file(self, file: str, tmp_path: Path) -> None:
        place(tmp_path, file, "events.csv", "events_old.parquet", "items.parquet")
        assert names(tmp_path) == [file]

    def test_a_folder_with_the_suffix_is_what_spark_writes(self, tmp_path: Path) -> None:
        place(tmp_path, "events.parquet/part-0.snappy.parquet", "events.parquet/_SUCCESS")
        assert names(tmp_path) == ["events.parquet/part-0.snappy.parquet"]

    @pytest.mark.parametrize("other", ["events/a.parquet", "events.pq"])
    def test_two_places_are_refused_by_name(self, other: str, tmp_path: Path) -> None:
        """One of them would be left out without a word."""
        place(tmp_path, "events.parquet", other)
        with pytest.raises(DataError, match="several places hold the events") as error:
            listed(tmp_path)
        assert error.value.value == f"{other.split('/')[0]}, events.parquet".replace(
            "events.pq, events.parquet", "events.parquet, events.pq"
        )

    def test_a_folder_without_data_beside_a_file_does_not_matter(self, tmp_path: Path) -> None:
        place(tmp_path, "events.parquet", "events/notes.txt")
        assert names(tmp_path) == ["events.parquet"]

    @pytest.mark.parametrize(
        ("paths", "lies_there"),
        [
            (["events/a.csv", "events/b.csv", "events/_SUCCESS"], ": 2 .csv files, 1 file whose"),
            (["clicks.parquet", "notes/"], "what lies there: clicks.parquet, notes"),
            (["events.parquet.tmp"], "what lies there: events.parquet.tmp"),
        ],
    )
    def test_where_none_is_found_the_error_says_what_is_there(
        self, paths: list[str], lies_there: str, tmp_path: Path
    ) -> None:
        place(tmp_path, *paths)
        with pytest.raises(DataError, match="no Parquet file found") as error:
            listed(tmp_path)
        assert lies_there in str(error.value)
        assert (error.value.where, error.value.field) == ("shop/log", "data.source")


class TestTableFormats:
    @pytest.mark.parametrize(
        ("mark", "kind"),
        [
            ("_delta_log/00000000000000000000.json", "delta"),
            ("_delta_log/", "delta"),
            (".hoodie/hoodie.properties", "hudi"),
            (".hoodie/", "hudi"),
            ("metadata/v1.metadata.json", "iceberg"),
            ("metadata/00001-aa.metadata.json", "iceberg"),
            ("metadata/v1.metadata.json.gz", "iceberg"),
        ],
    )
    @pytest.mark.parametrize("folder", ["events", "events/eu", "items", "items.parquet"])
    def test_a_table_of_rows_of_before_and_of_now_is_refused(
        self, folder: str, mark: str, kind: str, tmp_path: Path
    ) -> None:
        place(tmp_path, f"{folder}/data/part-0.parquet", f"{folder}/{mark}")
        with pytest.raises(DataError, match=f"a {kind.title()} table") as error:
            listed(tmp_path, folder.split("/")[0].split(".")[0])
        assert str(error.value.where).rstrip("/") == f"shop/log/{folder}"
        assert f'spark.read.format("{kind}").load(' in error.value.fix
        assert '.write.parquet("' in error.value.fix

    @pytest.mark.parametrize("other", ["metadata/notes.json", "part-0.metadata.json"])
    def test_other_metadata_is_no_iceberg(self, other: str, tmp_path: Path) -> None:
        place(tmp_path, "events/data/part-0.parquet", f"events/{other}")
        assert names(tmp_path) == ["events/data/part-0.parquet"]

    def test_a_folder_called_metadata_without_data_is_none_either(self, tmp_path: Path) -> None:
        place(tmp_path, "events/a.parquet", "events/metadata/v1.metadata.json")
        assert names(tmp_path) == ["events/a.parquet"]


def test_an_object_store_is_listed_alike() -> None:
    store = fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem("memory")))
    store.create_dir("bucket/log/items/_delta_log", recursive=True)
    for path in ("events/a=1/x.PARQUET", "events/_SUCCESS", "items/0.parquet",
                 "items/_delta_log/0.json"):  # fmt: skip
        store.create_dir(f"bucket/log/{path.rpartition('/')[0]}", recursive=True)
        with store.open_output_stream(f"bucket/log/{path}") as out:
            out.write(b"x")
    found = list_table(store, "bucket/log", "events", source="s3://bucket/log/")
    assert [path.lstrip("/") for path in found.files] == ["bucket/log/events/a=1/x.PARQUET"]
    assert found.left_out == {"hidden": 1}
    with pytest.raises(DataError, match="a Delta table") as error:
        list_table(store, "bucket/log", "items", source="s3://bucket/log/")
    assert 'load("s3://bucket/log/items")' in error.value.fix


def test_a_folder_that_must_not_be_read_is_named() -> None:
    class Locked:
        def get_file_info(self, _: object) -> None:
            raise PermissionError("access denied")

    with pytest.raises(DataError, match="cannot be listed: access denied") as error:
        list_table(Locked(), "b/log", "events", source="s3://b/log")  # type: ignore[arg-type]
    assert error.value.where == "s3://b/log"
