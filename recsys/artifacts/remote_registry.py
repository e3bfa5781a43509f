"""A registry in a store of objects, where nothing can be renamed.

    moves/<number>.json    what `registry.json` holds after that many moves of the champion
    bundles/<version>/     published folders, see `recsys.storage.published`

The last of the moves is what holds. A move creates the next file if there is none: of two at once,
one is written and the other is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recsys.artifacts.registry import Registry, check_added, content_of, empty_state
from recsys.errors import BundleError
from recsys.storage.conditional import create
from recsys.storage.location import Location, Place
from recsys.storage.node_cache import Fetched, NodeCache
from recsys.storage.published import MANIFEST, manifest_of, publish

_MOVES, _BUNDLES = "moves", "bundles"
_META = "bundle.json"
#: What this process has asked for stays on the node until the process ends.
_HELD: list[Fetched] = []


class RemoteRegistry(Registry):
    """A registry at a location; its bundles are fetched into the node's cache.

    Args:
        location: of the registry, which is made by the first `add`.
        cache: of this node.
    """

    def __init__(self, location: Location, cache: NodeCache) -> None:
        self.root: Location = location
        self._cache = cache

    def add(self, bundle_dir: Path, version: str) -> Place:
        """Publish a bundle here; returns its location. See `Registry.add`."""
        check_added(self.root, bundle_dir, version)
        target = self._place(version)
        if manifest_of(target) is not None:
            meta = self._cache.fetch(target, lambda name: name == _META)
            if content_of(meta.folder) == content_of(bundle_dir):
                return target
            raise BundleError(
                "another bundle is registered under this version", where=target,
                fix="add this one under a new version",
            )  # fmt: skip
        publish(bundle_dir, target)
        return target

    def versions(self) -> list[str]:
        """The versions that were added, sorted by name."""
        found = (name.split("/") for name in (self.root / _BUNDLES).sizes())
        return sorted(name[0] for name in found if name[1:] == [MANIFEST])

    def path(self, version_or_alias: str) -> Path:
        """The folder of a version in this node's cache; see `Registry.path`.

        Raises:
            StorageError: it cannot be fetched.
            NoSpaceError: the cache's disk is full.
        """
        fetched = self._cache.fetch(self._place(self.known(version_or_alias)))
        _HELD.append(fetched)
        return fetched.folder

    def _place(self, version: str) -> Location:
        return self.root / _BUNDLES / version

    def _load(self) -> dict[str, Any]:
        numbers = self.root / _MOVES
        last = max(numbers.sizes(), default=None)
        if last is None:
            return empty_state()
        return self._checked(numbers.read(last), f"{numbers}/{last}")

    def _write(self, state: dict[str, Any]) -> None:
        data = json.dumps(state, indent=2, sort_keys=True).encode()
        if not create(self.root, f"{_MOVES}/{len(state['history']):08d}.json", data):
            raise BundleError(
                f"another was first: {self.champion()} is champion since", where=self.root,
                fix="run the same command again, which compares with it",
            )  # fmt: skip

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """No lock: a move begins from the state that it was decided on, or is refused."""
        yield
