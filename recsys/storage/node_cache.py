"""Published folders on this node: fetched once, verified, bounded in size.

    {digest}/{file}      the files that were asked for; one that is there is whole and verified
    {digest}.lock        held, shared, by each process that uses the folder
    {digest}.used        its time is that of the last use
    .fetch               held by the process that copies files or removes folders

Several processes may fetch at once: one copies, the others wait for it, unless what they want is
there. A folder that no process holds may be removed for another one, the least recently used first.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from recsys.errors import NoSpaceError, StorageError, cause_of
from recsys.storage.location import Location, Place
from recsys.storage.outputs import sync
from recsys.storage.published import MANIFEST, Manifest, Part, in_parallel, manifest_of
from recsys.storage.seals import file_sha256

#: Times that a file is copied which is not what the manifest names; the network may be at fault.
COPIES_OF_A_FILE = 3
_LOCK, _USED, _FETCH = ".lock", ".used", ".fetch"
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Fetched:
    """A folder of the cache that stays as long as this object is held, by anybody.

    Attributes:
        folder: with the files that were asked for.
    """

    folder: Path
    _hold: IO[bytes] | None = None

    def release(self) -> None:
        """Let the folder go; without this it is let go with the object."""
        if self._hold is not None:
            self._hold.close()


@dataclass(frozen=True)
class NodeCache:
    """A folder of this node with copies of published ones.

    Attributes:
        folder: of the cache; made when it is needed.
        max_bytes: of all files in it.
    """

    folder: Path
    max_bytes: int

    def local(self, place: Place) -> Fetched:
        """What lies at a place: a folder as it is, a published one fetched whole.

        Raises:
            StorageError, NoSpaceError: see `fetch`.
        """
        return Fetched(place) if isinstance(place, Path) else self.fetch(place)

    def fetch(self, location: Location, only: Callable[[str], bool] | None = None) -> Fetched:
        """What is published at a location, on this node.

        Args:
            location: of the published folder.
            only: picks the files that are needed, by name; None: all.

        Raises:
            StorageError: nothing is published there, what came is not what the manifest names, the
                cache is too small, or the store fails.
            NoSpaceError: the disk of the cache is full.
        """
        found = self.find(location, only)
        if found is None:
            raise StorageError(
                f"nothing is published here: there is no {MANIFEST}", where=location,
                fix="run the job that writes it, or correct the URI",
            )  # fmt: skip
        return found

    def find(self, location: Location, only: Callable[[str], bool] | None = None) -> Fetched | None:
        """What is published at a location, if anything; see `fetch`."""
        manifest = manifest_of(location)
        while manifest is not None:
            hold = self._hold(manifest.digest)
            try:
                folder = self.folder / manifest.digest
                with self._telling_of_the_disk():
                    if _missing(folder, manifest, only):
                        with self._fetching():
                            self._complete(location, manifest, folder, only)
                    (self.folder / (manifest.digest + _USED)).touch()
                return Fetched(folder, hold)
            except FileNotFoundError:
                hold.close()
                newer = manifest_of(location)
                if newer == manifest:
                    raise StorageError(
                        "a part is missing that the manifest names", where=location,
                        fix="publish the folder again: run its job again",
                    ) from None  # fmt: skip
                manifest = newer  # published anew meanwhile, and the old parts are gone
            except BaseException:
                hold.close()
                raise
        return None

    def adopt(self, folder: Path, manifest: Manifest) -> Fetched:
        """Take over the files of a folder that was just published from here; it is on this disk."""
        hold = self._hold(manifest.digest)
        target = self.folder / manifest.digest
        with self._telling_of_the_disk(), self._fetching():
            missing = _missing(target, manifest, None)
            self.trim(sum(part.size for part in missing.values()))
            for name in missing:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).replace(target / name)
        (self.folder / (manifest.digest + _USED)).touch()
        return Fetched(target, hold)

    def trim(self, needed: int = 0) -> int:
        """Remove folders that nobody holds, the least recently used first, until the rest fits.

        Args:
            needed: bytes that are to come.

        Returns:
            Bytes that are left in the cache.
        """
        sizes = {
            path.name: _size(path)
            for path in self.folder.iterdir()
            if path.is_dir() and _DIGEST.fullmatch(path.name)
        }
        left = sum(sizes.values())
        for name in sorted(sizes, key=self._last_use):
            if left + needed <= self.max_bytes:
                break
            if self.remove(name):
                left -= sizes[name]
        return left

    def remove(self, name: str) -> bool:
        """Remove a folder, by its digest, unless a process holds it."""
        with (self.folder / (name + _LOCK)).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / (name + _USED)).unlink(missing_ok=True)
            return True

    def _complete(
        self,
        location: Location,
        manifest: Manifest,
        folder: Path,
        only: Callable[[str], bool] | None,
    ) -> None:
        """Copy what is missing.

        Raises:
            FileNotFoundError: a part is gone.
        """
        for left_over in folder.glob(".*.part"):  # of a process that was killed
            left_over.unlink(missing_ok=True)
        missing = _missing(folder, manifest, only)
        needed = sum(part.size for part in missing.values())
        left = self.trim(needed)
        if left + needed > self.max_bytes:
            raise StorageError(
                f"the cache of this node is too small: {_gb(needed)} are to come, and {_gb(left)} "
                f"are in use, of {_gb(self.max_bytes)}", where=self.folder,
                field="storage.cache_gb", value=self.max_bytes / 1e9,
                fix="raise it, or set storage.cache_dir to a folder on a larger disk",
            )  # fmt: skip
        for name in missing:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        in_parallel(
            lambda name: copy_part(location, manifest.part(name), folder, name, missing[name]),
            missing,
        )

    def _hold(self, name: str) -> IO[bytes]:
        with self._telling_of_the_disk():
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / (name + _LOCK)).open("ab")
        fcntl.flock(file, fcntl.LOCK_SH)
        return file

    @contextmanager
    def _fetching(self) -> Iterator[None]:
        with (self.folder / _FETCH).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _last_use(self, name: str) -> float:
        with suppress(OSError):
            return (self.folder / (name + _USED)).stat().st_mtime
        return 0.0

    @contextmanager
    def _telling_of_the_disk(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:  # a part that is gone
            raise
        except Exception as error:
            if isinstance(cause_of(error), NoSpaceError):
                raise NoSpaceError(
                    "no space is left on the disk of this node's cache, or none of its quota",
                    where=self.folder, field="storage.cache_dir",
                    fix="make room there, or set it to a folder on another disk; then the same "
                    "command goes on",
                ) from None  # fmt: skip
            if isinstance(error, OSError):
                raise StorageError(
                    f"the folder of this node's cache takes no file: {error.strerror or error}",
                    where=self.folder, field="storage.cache_dir",
                    fix="give this user the right to write there, or set it to another folder",
                ) from None  # fmt: skip
            raise


def _missing(
    folder: Path, manifest: Manifest, only: Callable[[str], bool] | None
) -> dict[str, Part]:
    """The files that are needed and not there; `folder` is there from then on."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        name: part
        for name, part in manifest.files.items()
        if (only is None or only(name)) and not (folder / name).is_file()
    }


def copy_part(location: Location, part: str, folder: Path, name: str, told: Part) -> None:
    """Copy one file aside, see that it is what the manifest names, and rename it into place.

    Raises:
        FileNotFoundError: it is gone.
        StorageError: what comes is not what the manifest names, or the store fails.
    """
    aside = folder / f".{uuid.uuid4().hex}.part"
    try:
        for _ in range(COPIES_OF_A_FILE):
            if not location.download(part, aside):
                raise FileNotFoundError(f"{location}/{part}")
            if aside.stat().st_size == told.size and file_sha256(aside) == told.sha256:
                break
        else:
            raise StorageError(
                "what comes is not what was published: its size or its SHA-256 differ from the "
                "manifest's", where=f"{location}/{part}",
                fix="publish the folder again: run its job again",
            )  # fmt: skip
        sync(aside)
        os.replace(aside, folder / name)
    finally:
        aside.unlink(missing_ok=True)


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
