"""Pieces of a preparation that lie in a store: a shuffle through it, with no folder in common.

A task works in a folder of its own, with the files that it reads, and leaves none of it on its
node: the pieces hold histories, and a node that is gone cannot be asked to forget them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from recsys.config import Recipe
from recsys.errors import DataError
from recsys.preparation.kept import ERASED_FILE, KEPT, RESULT_FILE, Kept
from recsys.state import Tombstone
from recsys.storage import conditional
from recsys.storage.location import Location
from recsys.storage.node_cache import NodeCache, copy_part
from recsys.storage.published import (
    in_parallel,
    manifest_of,
    publish,
    published_below,
    unpublish,
)

_T = TypeVar("_T")


def kept_of(recipe: Recipe, name: str = KEPT, **more: Any) -> Kept:
    """The kept pieces of a recipe's run.

    Args:
        recipe: of the run.
        name: of their folder in the run's.
        more: what else there is to a `Kept`.
    """
    shared = recipe.shared
    if shared.location is None:
        return Kept(shared.folder / name, **more)
    place, cache = shared.location / name, recipe.storage.cache
    return KeptInStore(shared.folder / name, location=place, cache=cache, **more)


@dataclass(frozen=True, kw_only=True)
class KeptInStore(Kept):
    """The kept pieces of a run in a store.

    Attributes:
        location: of the pieces, each published below it.
        cache: of the node, for what many tasks read and what is nobody's.
    """

    location: Location
    cache: NodeCache

    @contextmanager
    def at_work(self) -> Iterator[Self]:
        """A folder of the task's own."""
        self.cache.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".task-", dir=self.cache.folder) as folder:
            yield replace(self, folder=Path(folder))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others that make pieces of the run away meanwhile.

        Raises:
            StorageError: another one is at work, or was killed less than two minutes ago.
        """
        with conditional.locked(self.location, self.job):
            shutil.rmtree(self.folder, ignore_errors=True)
            try:
                yield
            finally:
                shutil.rmtree(self.folder, ignore_errors=True)

    def bring(self, pieces: Iterable[Path], only: Callable[[str], bool] | None = None) -> None:
        """Copy files of pieces here, verified; of a piece that is not there, none."""

        def bring(name: str) -> None:
            place, piece = self.location / name, self.folder / name
            manifest = manifest_of(place)
            if manifest is None:
                return
            for file, part in manifest.files.items():
                if (only is None or only(file)) and not (piece / file).exists():
                    (piece / file).parent.mkdir(parents=True, exist_ok=True)
                    copy_part(place, manifest.part(file), piece, file, part)

        in_parallel(bring, map(self._name, pieces))

    def mapped(self, piece: Path) -> Path:
        """A copy in the node's cache."""
        return self.cache.fetch(self.location / self._name(piece)).folder

    def make(self, piece: Path, work: Callable[[Path], dict[str, Any]]) -> None:
        """Make a piece here and publish it."""
        super().make(piece, work)
        publish(piece, self.location / self._name(piece))

    def is_made(self, piece: Path) -> bool:
        """Whether a piece is published; its files are verified as they are read."""
        return manifest_of(self.location / self._name(piece)) is not None

    def read_result(self, piece: Path) -> dict[str, Any]:
        """The result of a piece, brought here."""
        self.bring([piece], _is_result)
        return super().read_result(piece)

    def read_results(self, pieces: Sequence[Path]) -> list[dict[str, Any]]:
        """The results of pieces, brought here together."""
        self.bring(pieces, _is_result)
        return super().read_results(pieces)

    def read(self, piece: Path, name: str, work: Callable[[Any], _T]) -> _T:
        """What some work reads from where the file lies, as much of it as is asked for."""
        place = self.location / self._name(piece)
        manifest = manifest_of(place)
        if manifest is None:
            raise DataError("a piece is gone", where=place, fix=f"run `recsys {self.job}` again")
        return place.reading(manifest.part(name), work)

    def pieces(self, kind: Path) -> list[Path]:
        """The published pieces of a kind."""
        return [kind / name for name in published_below(self.location / kind.name)]

    def delete(self, pieces: Iterable[Path]) -> None:
        """Delete pieces, their manifests first."""
        for piece in pieces:
            unpublish(self.location / self._name(piece))
            shutil.rmtree(piece, ignore_errors=True)

    def forget(self, erased: Mapping[str, Tombstone]) -> None:
        """Delete the pieces of users whose tombstones are others than when they were split."""
        path = self.folder / ERASED_FILE
        self.location.fetch(ERASED_FILE, path)
        super().forget(erased)
        self.location.upload(path, ERASED_FILE)

    def _name(self, piece: Path) -> str:
        return piece.relative_to(self.folder).as_posix()


def _is_result(name: str) -> bool:
    return name == RESULT_FILE
