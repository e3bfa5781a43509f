"""A run's folder: one that all nodes see, or one of each node with its pieces in a store.

A piece is a folder or a file below it. Where the run lies in a store, a piece is written whole on
one node, published, and brought to the others when they open it. What is here then is a link to the
node's cache, so it is verified, and the same piece lies here once.

    {folder}/prepared -> {cache}/{digest}     {location}/prepared/manifest.json, ...
    {folder}/winner.json                      {location}/winner.json
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from recsys.errors import DataError
from recsys.storage import conditional
from recsys.storage.location import Location
from recsys.storage.node_cache import Fetched, NodeCache
from recsys.storage.outputs import telling_full, whole_folder
from recsys.storage.published import manifest_of, publish, published_below, unpublish

#: What this process has opened stays in the cache: path -> hold.
_held: dict[Path, Fetched] = {}
_changing = threading.Lock()


@dataclass(frozen=True)
class SharedFolder:
    """A folder whose pieces all nodes see.

    Attributes:
        folder: of this node, of the same name on every node.
        location: where its pieces are published; None: all nodes see the folder itself.
        cache: of the node; needed where there is a location.

    Raises:
        StorageError, NoSpaceError: of every method, where there is a location.
    """

    folder: Path
    location: Location | None = None
    cache: NodeCache | None = None

    def bring(self, path: Path) -> None:
        """Have a folder here as it is published; if it is not, it is not here either."""
        if self.location is None:
            return
        self._link(path, self._cache.find(self._place(path)))

    def bring_all(self, folder: Path) -> None:
        """Have here all folders that are published right below one, and no others."""
        if self.location is None:
            return
        names = self.names(folder)
        for name in names:
            self.bring(folder / name)
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_symlink() and path.name not in names:
                self._link(path, None)

    def names(self, folder: Path) -> list[str]:
        """Names of the folders that are published right below one."""
        if self.location is None:
            return sorted(path.name for path in folder.glob("[!.]*") if path.is_dir())
        return published_below(self._place(folder))

    @contextmanager
    def whole(self, path: Path, mark: str = "") -> Iterator[Path]:
        """A fresh folder that takes the place of one, for all nodes, if the block ends well.

        Args:
            path: of the folder.
            mark: see `whole_folder`.
        """
        if self.location is None:
            with whole_folder(path, mark) as aside:
                yield aside
            return
        aside = path.with_name(f".{path.name}{mark}.{uuid.uuid4().hex}.part")
        try:
            aside.mkdir(parents=True)
            with telling_full(aside.parent):
                yield aside
            manifest = publish(aside, self._place(path))
            self._link(path, self._cache.adopt(aside, manifest))
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    @contextmanager
    def changing(self, path: Path) -> Iterator[Path]:
        """A folder in the place of one, in which files may be replaced, each whole."""
        if self.location is None:
            yield path
            return
        with self.whole(path) as aside:
            shutil.copytree(path.resolve(), aside, copy_function=os.link, dirs_exist_ok=True)
            yield aside

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other jobs that write into the folder away meanwhile.

        Raises:
            DataError: one is at work.
            StorageError: likewise, or one was killed a moment ago.
        """
        if self.location is not None:
            with conditional.locked(self.location, "job"):
                yield
            return
        path, at_work = self.folder / ".lock", ""
        lock = _lock(path)
        if lock is None:
            with suppress(OSError):
                at_work = path.read_text()
            raise DataError(
                f"in use: another job of this run is at work ({at_work or 'unknown'})",
                where=self.folder, field="run_dir",
                fix="wait until it has ended, or set another run_dir",
            )  # fmt: skip
        with lock:
            with suppress(OSError):  # on a full disk
                os.ftruncate(lock.fileno(), 0)
                os.write(lock.fileno(), conditional.holder().encode())
            try:
                yield
            finally:
                # A job that is refused leaves nothing, not even an empty folder.
                path.unlink(missing_ok=True)
                with suppress(OSError):
                    self.folder.rmdir()

    def read(self, folder: Path, name: str) -> bytes | None:
        """A small file of a folder, as it is published; the folder is not brought here."""
        try:
            if self.location is None:
                return (folder / name).read_bytes()
            place = self._place(folder)
            manifest = manifest_of(place)
            return None if manifest is None else place.read(manifest.part(name))
        except OSError:
            return None

    def drop(self, path: Path) -> None:
        """Remove a folder; the caches of other nodes forget it by and by."""
        if self.location is not None:
            unpublish(self._place(path))
            self._link(path, None)
        shutil.rmtree(path, ignore_errors=True)

    def bring_files(self, paths: Iterable[Path]) -> None:
        """Have files here as they are in the store; one that is not there is not here either."""
        if self.location is not None:
            for path in paths:
                self.location.fetch(self._name(path), path)

    def hand_in(self, *paths: Path) -> None:
        """Have files in the store as they are here, one after another."""
        if self.location is not None:
            for path in paths:
                self.location.upload(path, self._name(path))

    @property
    def _cache(self) -> NodeCache:
        assert self.cache is not None
        return self.cache

    def _link(self, path: Path, fetched: Fetched | None) -> None:
        """Have a folder of the cache under a path, held as long as this process lives.

        The one of before goes from the cache, unless it is in use: it may hold an erased user.
        """
        before = path.readlink() if path.is_symlink() else None
        with _changing:
            if fetched is not None:
                _link_to(path, fetched.folder)
            elif before is not None:
                path.unlink(missing_ok=True)
            else:
                shutil.rmtree(path, ignore_errors=True)
            held = _held.pop(path, None)
            if fetched is not None:
                _held[path] = fetched
            if held is not None:
                held.release()
        if before is not None and (fetched is None or before != fetched.folder):
            self._cache.remove(before.name)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _place(self, path: Path) -> Location:
        assert self.location is not None
        return self.location / self._name(path)


def _lock(path: Path) -> IO[str] | None:
    """Open and lock a file; None if another process holds it.

    Whoever held it deletes it at the end, maybe between our opening and our locking.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = path.open("a")
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        lock.close()


def _link_to(path: Path, folder: Path) -> None:
    if path.is_symlink() and path.readlink() == folder:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():  # what was begun here, and never published
        shutil.rmtree(path)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.link")
    aside.symlink_to(folder)
    aside.replace(path)
