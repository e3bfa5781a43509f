"""Whole outputs or none: write aside, then rename."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recsys.errors import NoSpaceError, RaycommendError

#: A disk with less room is full: a file takes a few pages at least.
_FULL_BYTES = 1 << 15


@contextmanager
def whole_folder(target: Path, mark: str = "") -> Iterator[Path]:
    """A fresh folder that takes `target`'s place if the block ends well, and vanishes if not.

    Args:
        target: its name until then begins with a dot and ends with `.part`.
        mark: tells writers apart that may write the same target at once.

    Raises:
        NoSpaceError: see `telling_full`.
    """
    aside = target.with_name(f".{target.name}{mark}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        with telling_full(aside.parent):
            yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    replaced = target.with_name(f".{target.name}{mark}.old")
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        target.rename(replaced)
    aside.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def telling_full(folder: Path) -> Iterator[None]:
    """Tell of a full disk where a library does not: Polars, of the last bytes of a Parquet file.

    Args:
        folder: on the disk. What was half written must still lie there: without it there is room.

    Raises:
        NoSpaceError: the block failed with an error that is not ours, and the disk is full.
    """
    try:
        yield
    except RaycommendError:
        raise
    except Exception as error:
        if shutil.disk_usage(folder).free < _FULL_BYTES:
            raise NoSpaceError.on(None, []) from error
        raise


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path that takes `target`'s place, synced to disk, if the block ends well; else it vanishes.

    Folders above are made.

    Raises:
        NoSpaceError: see `telling_full`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with telling_full(target.parent):
            yield aside
        sync(aside)
        aside.replace(target)
        sync(target.parent)
    finally:
        aside.unlink(missing_ok=True)


def place(source: Path, target: Path) -> None:
    """Have a finished file in a second place too: as a link where that goes, else as a copy.

    Neither is changed from then on; whoever writes another one replaces it whole.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, data: Any, *, mode: int = 0o666) -> None:
    """Write JSON aside, flush it to disk, then rename it into place.

    Args:
        path: of the file.
        data: plain data.
        mode: permissions, less those that the process's umask takes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(data, file, indent=2, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
