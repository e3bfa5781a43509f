"""Which files of a folder are a table's data, which are left out, and which folders are refused."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pyarrow import fs

from recsys.data.adapters.foreign import may_pass, tell_of_the_store
from recsys.errors import DataError
from recsys.storage.patience import patiently

#: What Parquet files are called; pandas' users add the compression.
_PARQUET = re.compile(r"\.(parquet|parq|pq)(\.(gzip|gz|snappy|zstd|zst|brotli|br|lz4))?$", re.I)
_HIDDEN, _NO_SUFFIX = "hidden", "no suffix"

#: Table format -> what a path below the table's folder ends with, if it is one.
_FORMATS = {
    "delta": re.compile(r"(?:^|/)_delta_log(?:/|$)"),
    "hudi": re.compile(r"(?:^|/)\.hoodie(?:/|$)"),
    "iceberg": re.compile(r"(?:^|/)metadata/[^/]+\.metadata\.json(?:\.gz)?$"),
}
_SPOKEN = {"delta": "Delta", "hudi": "Hudi", "iceberg": "Iceberg"}


@dataclass(frozen=True)
class Listing:
    """A table's files.

    Attributes:
        files: paths of the Parquet files, sorted.
        left_out: why a file is no data -> how many: `hidden`, or a suffix such as `.csv`.
    """

    files: list[str]
    left_out: dict[str, int]


def list_table(filesystem: fs.FileSystem, root: str, name: str, *, source: str) -> Listing:
    """The files of the table `name` in the folder `root`.

    They lie in the folder `name`, at any depth, or in a file of that name with a Parquet suffix; a
    folder with the suffix is one that Spark wrote.

    Args:
        filesystem: of `root`.
        root: folder, as a path of the file system.
        name: `events` or `items`.
        source: the folder as the recipe names it, for messages.

    Raises:
        DataError: there is no Parquet file, or more than one place with some; the folder is a table
            of Delta, Iceberg or Hudi.
    """

    def below(folder: str, *, recursive: bool) -> list[fs.FileInfo]:
        selector = fs.FileSelector(folder, recursive=recursive, allow_not_found=True)
        try:
            found = patiently(lambda: filesystem.get_file_info(selector), may_pass)
            return sorted(found, key=lambda info: info.path)
        except NotADirectoryError:
            return []
        except OSError as error:
            tell_of_the_store(error, source)
            raise DataError(
                f"the folder cannot be listed: {error}", where=source, field="data.source",
                fix="correct data.source, or the right to read there",
            ) from None  # fmt: skip

    top = below(root, recursive=False)
    bucket = root.partition("/")[0]
    is_there = top or "://" not in source or not bucket
    if not is_there and filesystem.get_file_info(bucket).type == fs.FileType.NotFound:
        raise DataError(
            "there is no such bucket", where=source, field="data.source", value=bucket,
            fix="create it, or correct data.source",
        )  # fmt: skip
    places = [info for info in top if _PARQUET.sub("", info.base_name) == name]
    found, left_out = {}, Counter[str]()
    for place in places:
        if place.type == fs.FileType.File:
            files = [place.path] if place.base_name != name else []
        else:
            # Relative to the source, as the messages name them.
            inside = {
                place.base_name + info.path[len(place.path) :]: info
                for info in below(place.path, recursive=True)
            }
            _refuse_table_format(list(inside), source)
            kept, others = sort_out(
                [path for path, info in inside.items() if info.type == fs.FileType.File]
            )
            files = [inside[path].path for path in kept]
            left_out.update(others)
        if files:
            found[place.base_name] = files
    if len(found) > 1:
        raise DataError(
            f"several places hold the {name}", where=source, field="data.source",
            value=", ".join(sorted(found)), fix="keep one of them there",
        )  # fmt: skip
    if not found:
        beside = told(left_out) or ", ".join(sorted(info.base_name for info in top)[:10])
        raise DataError(
            f"no Parquet file found: neither {name}.parquet nor {name}/**/*.parquet"
            + (f"; what lies there: {beside}" if beside else ""),
            where=source, field="data.source", fix=f"put the {name} there, or correct data.source",
        )  # fmt: skip
    (files,) = found.values()
    return Listing(sorted(files), dict(sorted(left_out.items())))


def sort_out(paths: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """Tell data from what only lies beside it.

    Names that begin with `_` or `.` are no data, at any depth: logs, markers, checksums and
    half-written files of Spark, Delta, notebooks. A folder `_key=value` is a partition, as Spark
    takes it.

    Args:
        paths: of files, relative to the source.

    Returns:
        The Parquet files among them, and for the others why they are none -> how many.
    """
    kept, left_out = [], Counter[str]()
    for path in paths:
        *folders, name = path.split("/")
        if _is_hidden(name) or any(_is_hidden(each) and "=" not in each for each in folders):
            left_out[_HIDDEN] += 1
        elif _PARQUET.search(name):
            kept.append(path)
        else:
            left_out[PurePosixPath(name).suffix.lower() or _NO_SUFFIX] += 1
    return kept, dict(left_out)


def told(left_out: Mapping[str, int]) -> str:
    """What was left out, in words; empty if nothing was."""

    def files(count: int, kind: str = "") -> str:
        return f"{count:,} {kind}file{'s' if count > 1 else ''}"

    words = {
        _HIDDEN: "whose names, or their folders', begin with _ or .",
        _NO_SUFFIX: "without a suffix",
    }
    return ", ".join(
        f"{files(count)} {words[why]}" if why in words else files(count, f"{why} ")
        for why, count in sorted(left_out.items(), key=lambda each: (-each[1], each[0]))
    )  # fmt: skip


def _is_hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _refuse_table_format(paths: Sequence[str], source: str) -> None:
    """Refuse a folder whose files are rows of before and of now together."""
    for kind, mark in _FORMATS.items():
        for path in paths:
            found = mark.search(path)
            if not found:
                continue
            inside = path[: found.start()]
            if kind == "iceberg" and not any(p.startswith(f"{inside}/data/") for p in paths):
                continue
            table = f"{source.rstrip('/')}/{inside}"
            raise DataError(
                f"a {_SPOKEN[kind]} table: its folder holds superseded and deleted rows too, and "
                "only its log tells them apart", where=table, field="data.source",
                fix="write a plain export of the current version and point data.source at it, "
                f'e.g. in Spark: spark.read.format("{kind}").load("{table}").write.parquet("...")',
            )  # fmt: skip


def file_version(info: fs.FileInfo) -> str:
    """Size and time of a file's last change, as text."""
    return f"{info.size}-{info.mtime_ns}"
