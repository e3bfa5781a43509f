"""What a preparation keeps for the next one: the parts it split and the buckets it built.

    split/parts/{key}/      bucket files of a part of the log, its quarantine, its counts
    split/buckets/{key}/    histories of a bucket, its counts and its pairs of items
    split/matrices/{key}/   relations of items as of a cut
    split/erased.json       digests of the tombstones that the parts were split under

A key is a hash of everything that the content depends on, so a piece is either the one that would
be made now, or has another key. The pieces hold histories: what a run does not name is deleted at
its end, and the parts of a user who was erased since are deleted before it begins.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from recsys.config import Recipe
from recsys.data.adapters import Part
from recsys.errors import DataError
from recsys.schema import Col
from recsys.state import Tombstone
from recsys.storage.outputs import whole_folder, write_json
from recsys.storage.reading import read_json, read_parquet
from recsys.storage.seals import file_hashes, json_sha256

KEPT: Final = "split"
#: Of the pieces' formats, and of the code that makes them: a change of either needs another number.
FORMAT: Final = 1
RESULT_FILE, USERS_FILE = "result.json", "users.parquet"
#: Characters of a pseudonym that tell a user in `USERS_FILE`.
PREFIX_CHARS: Final = 16
_ERASED_FILE: Final = "erased.json"
_FIX: Final = f"delete the folder `{KEPT}` and run `recsys prepare` again"
#: Keys of `data` that make no difference to a part or a bucket, or stand in their keys otherwise.
_APART: Final = (
    "text_fields", "max_tokens", "count_every_days", "max_quarantine_fraction", "max_clock_skew_s",
    "num_buckets",
)  # fmt: skip


@dataclass(frozen=True)
class Kept:
    """The folder of kept pieces of a run."""

    folder: Path

    @staticmethod
    def of(run: Path) -> Kept:
        """The pieces of a run's folder, which need not be there yet."""
        return Kept(run / KEPT)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other preparations of the run away meanwhile.

        Raises:
            DataError: another one is at work.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(
                    "in use: another `prepare` of this run is at work", where=self.folder,
                    fix="wait until it has ended, or set another run_dir",
                ) from None  # fmt: skip
            yield

    @property
    def parts(self) -> Path:
        """Folder of the parts."""
        return self.folder / "parts"

    @property
    def buckets(self) -> Path:
        """Folder of the buckets."""
        return self.folder / "buckets"

    @property
    def matrices(self) -> Path:
        """Folder of the relations."""
        return self.folder / "matrices"

    def built(self, common: str) -> dict[int, dict[str, Any]]:
        """Number of a bucket -> the result of the one that was built last, with its `key`.

        Whether its files are whole is for the task to see that reads them, see `is_made`.

        Args:
            common: of `context`: buckets of another one are not told.
        """
        found: dict[int, dict[str, Any]] = {}
        for folder in sorted(self.buckets.glob("[!.]*")):
            with suppress(DataError):
                if (result := read_result(folder))["common"] == common:
                    found[result["number"]] = {**result, "key": folder.name}
        return found

    def forget(self, erased: Mapping[str, Tombstone]) -> None:
        """Delete the pieces of users whose tombstones are others than when they were split."""
        path = self.folder / _ERASED_FILE
        then = read_json(path, _FIX, {}) if path.is_file() else {}
        now = {user: _digest(each) for user, each in erased.items()}
        changed = [user for user in then.keys() | now.keys() if then.get(user) != now.get(user)]
        told = [user[:PREFIX_CHARS] for user in changed]
        held = (f"parts/*/{USERS_FILE}", "buckets/*/histories.parquet", "buckets/*/crowded.parquet")
        for path_of_users in (each for name in held for each in self.folder.glob(name) if told):
            if _holds(path_of_users, told):
                shutil.rmtree(path_of_users.parent)
        write_json(path, now)

    def drop_outdated(self, key: str, latest_us: int) -> None:
        """Delete a part that would be split otherwise now, for what lies in the future.

        Args:
            key: of the part.
            latest_us: a later timestamp lies in the future.
        """
        folder = self.parts / key
        with suppress(DataError):  # one that is not there, or damaged, is split anyway
            result = read_result(folder)
            future, last = result["future_us"], json.loads(result["coverage"])["last_us"]
            if (future or latest_us + 1) <= latest_us or (last or 0) > latest_us:
                shutil.rmtree(folder)

    def keep_only(self, keys: Iterable[str]) -> None:
        """Delete all pieces but these."""
        wanted = set(keys)
        for folder in (self.parts, self.buckets, self.matrices):
            for piece in folder.glob("*") if folder.is_dir() else ():
                if piece.name not in wanted:
                    shutil.rmtree(piece)


def context(recipe: Recipe, key_check: str, item_ids_sha256: str, num_buckets: int) -> str:
    """Hash of what all parts and buckets of a run depend on."""
    data = recipe.resolved()["data"]
    return json_sha256(
        {
            "format": FORMAT,
            "data": {name: value for name, value in data.items() if name not in _APART},
            "key_check": key_check,
            "items": item_ids_sha256,
            "num_buckets": num_buckets,
        }
    )


def part_key(part: Part, version: str, live: bool, common: str) -> str:
    """Key of a part: of the file by name, size and time of its last change, see `Adapter`."""
    return json_sha256(
        [common, live, part.path, part.first_group, part.last_group, part.num_rows, version]
    )[:32]


def make(folder: Path, work: Callable[[Path], dict[str, Any]]) -> None:
    """Make a piece: whole, or not at all.

    Args:
        folder: of the piece.
        work: writes its files into a folder and returns the result, plain data.
    """
    with whole_folder(folder) as aside:
        result = work(aside)
        write_json(aside / RESULT_FILE, {**result, "files": file_hashes(aside)})


def is_made(folder: Path) -> bool:
    """Whether a piece is there; one whose files are not what was written is deleted."""
    if not folder.is_dir():
        return False
    with suppress(DataError):
        found = file_hashes(folder)
        found.pop(RESULT_FILE, None)
        if found == read_result(folder)["files"]:
            return True
    shutil.rmtree(folder)
    return False


def read_result(folder: Path) -> dict[str, Any]:
    """The result of a piece.

    Raises:
        DataError: it is missing or broken.
    """
    return read_json(folder / RESULT_FILE, _FIX, {"files": dict})


def _holds(path: Path, prefixes: Sequence[str]) -> bool:
    """Whether a file names one of some users; one that cannot be read may."""
    try:
        users = read_parquet(path, _FIX, {Col.user: pl.String}, only=True)[Col.user]
    except DataError:
        return True
    return bool(users.str.slice(0, PREFIX_CHARS).is_in(prefixes).any())


def _digest(each: Tombstone) -> str:
    return json_sha256([each.at_us, each.until_us, sorted(each.ahead)])[:16]
