"""What a preparation keeps for the next one: the parts it split and the buckets it built.

    split/parts/{key}/      bucket files of a part of the log, its quarantine, its counts
    split/buckets/{key}/    histories of a bucket, its counts and its pairs of items
    split/matrices/{key}/   relations of items as of a cut
    split/texts/{key}/      tokens of all texts, by tokenizer
    split/items/{key}/      ids of the items, and the rows that they have in the buckets
    split/relating/{name}/  what tasks of this preparation hand each other, see `relate`
    split/erased.json       digests of the tombstones that the parts were split under

A key is a hash of everything that the content depends on, so a piece is either the one that would
be made now, or has another key. The pieces hold histories: what a run does not name is deleted at
its end, and the parts of a user who was erased since are deleted before it begins. `exposures`
keeps its own pieces in the same way, see `outcomes.joining`.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

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
FORMAT: Final = 3
RESULT_FILE, USERS_FILE = "result.json", "users.parquet"
#: Characters of a pseudonym that tell a user in `USERS_FILE`.
PREFIX_CHARS: Final = 16
ERASED_FILE: Final = "erased.json"
RELATING: Final = "relating"
#: Files of parts and buckets that tell whose rows they hold.
_WITH_USERS: Final = (USERS_FILE, "histories.parquet", "crowded.parquet")
#: Kinds of pieces, a folder each.
_KINDS: Final = ("parts", "buckets", "matrices", "texts", "items", RELATING)
#: Keys of `data` that make no difference to a part or a bucket, or stand in their keys otherwise.
_APART: Final = (
    "text_fields", "max_tokens", "count_every_days", "max_quarantine_fraction", "max_clock_skew_s",
    "num_buckets",
)  # fmt: skip

_T = TypeVar("_T")


@dataclass(frozen=True)
class Kept:
    """The kept pieces of a run, in a folder that all nodes see; of one in a store, see `stored`.

    Attributes:
        folder: of the pieces, which need not be there yet; a piece is told by its folder below it.
        job: that keeps them.
        kinds: of the pieces, a folder each.
    """

    folder: Path
    job: str = "prepare"
    kinds: tuple[str, ...] = _KINDS

    @contextmanager
    def at_work(self) -> Iterator[Self]:
        """The pieces as a task of any node reads and makes them, in the block."""
        yield self

    def bring(self, pieces: Iterable[Path], only: Callable[[str], bool] | None = None) -> None:
        """Have files of pieces here that are about to be read.

        Args:
            pieces: their folders.
            only: picks the files, by name; None: all.
        """

    def mapped(self, piece: Path) -> Path:
        """The folder of a piece that many tasks of a node read."""
        return piece

    def make(self, piece: Path, work: Callable[[Path], dict[str, Any]]) -> None:
        """Make a piece: whole, or not at all.

        Args:
            piece: its folder.
            work: writes its files into a folder and returns the result, plain data.
        """
        with whole_folder(piece) as aside:
            result = work(aside)
            write_json(aside / RESULT_FILE, {**result, "files": file_hashes(aside)})

    def is_made(self, piece: Path) -> bool:
        """Whether a piece is there; one whose files are not what was written is deleted."""
        if not piece.is_dir():
            return False
        with suppress(DataError):
            found = file_hashes(piece)
            found.pop(RESULT_FILE, None)
            if found == self.read_result(piece)["files"]:
                return True
        self.delete([piece])
        return False

    def read_result(self, piece: Path) -> dict[str, Any]:
        """The result of a piece.

        Raises:
            DataError: it is missing or broken.
        """
        return read_json(piece / RESULT_FILE, self._fix, {"files": dict})

    def read_results(self, pieces: Sequence[Path]) -> list[dict[str, Any]]:
        """The results of pieces, see `read_result`."""
        return [self.read_result(piece) for piece in pieces]

    def read(self, piece: Path, name: str, work: Callable[[Any], _T]) -> _T:
        """What some work reads in parts of a Parquet file of a piece.

        Args:
            piece: its folder.
            name: of the file.
            work: is given what `pyarrow.parquet` reads from; may be done again.
        """
        return work(piece / name)

    def pieces(self, kind: Path) -> list[Path]:
        """The pieces of a kind, by name.

        Args:
            kind: folder of the pieces, such as `parts`.
        """
        return sorted(kind.glob("[!.]*"))

    def delete(self, pieces: Iterable[Path]) -> None:
        """Delete pieces."""
        for piece in pieces:
            shutil.rmtree(piece, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others that make pieces of the run away meanwhile.

        Raises:
            DataError: another one is at work.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(
                    f"in use: another `{self.job}` of this run is at work", where=self.folder,
                    fix="wait until it has ended, or set another run_dir",
                ) from None  # fmt: skip
            yield

    @property
    def _fix(self) -> str:
        return f"delete the folder `{self.folder.name}` and run `recsys {self.job}` again"

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

    @property
    def texts(self) -> Path:
        """Folder of the tokens."""
        return self.folder / "texts"

    @property
    def items(self) -> Path:
        """Folder of the item ids."""
        return self.folder / "items"

    @property
    def relating(self) -> Path:
        """Folder of what tasks hand each other."""
        return self.folder / RELATING

    def built(self, common: str) -> dict[int, dict[str, Any]]:
        """Number of a bucket -> the result of the one that was built last, with its `key`.

        Whether its files are whole is for the task to see that reads them, see `is_made`.

        Args:
            common: of `context`: buckets of another one are not told.
        """
        found: dict[int, dict[str, Any]] = {}
        for piece in self.pieces(self.buckets):
            with suppress(DataError):
                if (result := self.read_result(piece))["common"] == common:
                    found[result["number"]] = {**result, "key": piece.name}
        return found

    def forget(self, erased: Mapping[str, Tombstone]) -> None:
        """Delete the pieces of users whose tombstones are others than when they were split."""
        path = self.folder / ERASED_FILE
        then = read_json(path, self._fix, {}) if path.is_file() else {}
        now = {user: _digest(each) for user, each in erased.items()}
        changed = [user for user in then.keys() | now.keys() if then.get(user) != now.get(user)]
        told = [user[:PREFIX_CHARS] for user in changed]
        kinds = [self.folder / name for name in self.kinds] if told else []
        for piece in [each for kind in kinds for each in self.pieces(kind)]:
            self.bring([piece], lambda name: name in _WITH_USERS)
            files = [piece / name for name in _WITH_USERS]
            if any(_holds(file, told, self._fix) for file in files if file.exists()):
                self.delete([piece])
        write_json(path, now)

    def drop_outdated(self, key: str, latest_us: int) -> None:
        """Delete a part that would be split otherwise now, for what lies in the future.

        Args:
            key: of the part.
            latest_us: a later timestamp lies in the future.
        """
        piece = self.parts / key
        with suppress(DataError):  # one that is not there, or damaged, is split anyway
            result = self.read_result(piece)
            future, last = result["future_us"], json.loads(result["coverage"])["last_us"]
            if (future or latest_us + 1) <= latest_us or (last or 0) > latest_us:
                self.delete([piece])

    def keep_only(self, keys: Iterable[str]) -> None:
        """Delete all pieces but these."""
        wanted = set(keys)
        for kind in [self.folder / name for name in self.kinds]:
            self.delete(piece for piece in self.pieces(kind) if piece.name not in wanted)
            for left_over in kind.glob(".*"):  # of a task that was killed
                shutil.rmtree(left_over, ignore_errors=True)


def context(recipe: Recipe, key_check: str, num_buckets: int, *, of_parts: bool = False) -> str:
    """Hash of what all buckets of a run depend on.

    Args:
        recipe: of the run.
        key_check: of the pseudonyms' key.
        num_buckets: of the users.
        of_parts: what all parts depend on: of the cuts the end alone, since a night moves the
            others, and does not read the log again.
    """
    data = recipe.resolved()["data"]
    if of_parts:
        data["cuts"] = data["cuts"]["end"]
    return json_sha256(
        {
            "format": FORMAT,
            "data": {name: value for name, value in data.items() if name not in _APART},
            "key_check": key_check,
            "num_buckets": num_buckets,
        }
    )


def part_key(part: Part, version: str, live: bool, common: str) -> str:
    """Key of a part: of the file by name, size and time of its last change, see `Adapter`."""
    return json_sha256(
        [common, live, part.path, part.first_group, part.last_group, part.num_rows, version]
    )[:32]


def _holds(path: Path, prefixes: Sequence[str], fix: str) -> bool:
    """Whether a file names one of some users; one that cannot be read may."""
    try:
        users = read_parquet(path, fix, {Col.user: pl.String}, only=True)[Col.user]
    except DataError:
        return True
    return bool(users.str.slice(0, PREFIX_CHARS).is_in(prefixes).any())


def _digest(each: Tombstone) -> str:
    return json_sha256([each.at_us, each.until_us, sorted(each.ahead)])[:16]
