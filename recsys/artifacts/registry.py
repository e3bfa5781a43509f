"""The registry: a folder of bundles, and which of them is the champion.

    registry.json       {"format": 1, "champion": ..., "history": [...]}
    bundles/<version>/  whole bundles; one that is still being copied has a name that begins with a
    dot

Every change is made aside and renamed into place, under one file lock, so a reader needs no lock:
it sees the registry before or after, whenever the writer dies.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recsys.config import Recipe
from recsys.errors import BundleError
from recsys.storage.location import Location, Place
from recsys.storage.outputs import sync, write_json
from recsys.storage.reading import read_json
from recsys.storage.seals import SEAL

FORMAT_VERSION = 1
CHAMPION = "champion"
_MANIFEST = "bundle.json"
_ASIDE = ".tmp-"
#: Keys of a manifest that are no part of the bundle's identity.
_BESIDE = {"metrics", SEAL, "searched", "language_model", "started_from"}
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Registry:
    """A registry in the folder `root`, which is made by the first `add`."""

    def __init__(self, root: Path) -> None:
        self.root: Place = root
        self._bundles = root / "bundles"
        self._file = root / "registry.json"

    @staticmethod
    def of(recipe: Recipe) -> Registry:
        """The registry that a recipe names: of a URI a `RemoteRegistry`."""
        place = recipe.registry
        if isinstance(place, Location):
            from recsys.artifacts.remote_registry import RemoteRegistry

            return RemoteRegistry(place, recipe.storage.cache)
        return Registry(place)

    def add(self, bundle_dir: Path, version: str) -> Place:
        """Copy a bundle in, as hard links where the file system allows; returns its place here.

        The same bundle under the same version is left as it is, so a job may be run again.

        Raises:
            BundleError: the folder is no bundle, the name is unfit, or another bundle bears it.
        """
        check_added(self.root, bundle_dir, version)
        target = self._bundles / version
        with self._locked():
            for left_over in self._bundles.glob(f"{_ASIDE}*"):  # of a process that died copying
                shutil.rmtree(left_over)
            if target.exists():
                if content_of(target) == content_of(bundle_dir):
                    return target
                raise BundleError(
                    "another bundle is registered under this version",
                    where=target,
                    fix="add this one under a new version",
                )
            aside = self._bundles / f"{_ASIDE}{version}-{uuid.uuid4().hex}"
            _copy_tree(bundle_dir, aside)
            aside.rename(target)
            sync(self._bundles)
        return target

    def versions(self) -> list[str]:
        """The versions that were added, sorted by name."""
        if not self._bundles.is_dir():
            return []
        return sorted(path.name for path in self._bundles.iterdir() if path.name[0] != ".")

    def champion(self) -> str | None:
        """The version that is served, if one was ever promoted."""
        version: str | None = self._load()[CHAMPION]
        return version

    def describe(self) -> str:
        """Who is champion, in words."""
        return f"champion: {self.champion()} (change {len(self.history())} in {self.root})"

    def history(self) -> list[dict[str, Any]]:
        """Every move of the champion, oldest first.

        Returns:
            Dictionaries with `version`, `promoted_at` (ISO 8601, UTC), `previous` (the champion
            before, or None), `action` (`promote` or `rollback`) and, of a promotion by the gate,
            `evidence` (see `recsys.evaluation.evidence`).
        """
        moves: list[dict[str, Any]] = self._load()["history"]
        return moves

    def evidence(self) -> dict[str, Any]:
        """What the champion was promoted on; empty where that was not noted."""
        standing = _standing(self.history())
        return dict(standing[-1].get("evidence", {})) if standing else {}

    def path(self, version_or_alias: str) -> Path:
        """The folder of a version, or of the alias `champion`.

        Raises:
            BundleError: there is none.
        """
        return self._bundles / self.known(version_or_alias)

    def place(self, version_or_alias: str) -> Place:
        """Where a version lies, or the champion, for whoever reads it on another node.

        Raises:
            BundleError: there is none.
        """
        return self._place(self.known(version_or_alias))

    def known(self, version_or_alias: str) -> str:
        """The name of a version that was added, or of the champion.

        Raises:
            BundleError: there is none.
        """
        version: str | None = version_or_alias
        if version_or_alias == CHAMPION:
            version = self.champion()
            if version is None:
                raise BundleError(
                    "no champion yet", where=self.root,
                    fix="run `recsys promote`; a relative promote.registry counts from the "
                    "current folder",
                )  # fmt: skip
        if version not in self.versions():
            raise BundleError(
                "no such version",
                where=self.root,
                value=version,
                fix=f"name one of: {', '.join(self.versions()) or '(none were added)'}",
            )
        return version

    def promote(
        self, version: str, *, over: str | None = "", evidence: dict[str, Any] | None = None
    ) -> None:
        """Make a version the champion; nothing changes if it is.

        Args:
            version: that was added.
            over: the champion that it was compared with, or None if there was none; empty: any.
            evidence: that it was decided on, as JSON data.

        Raises:
            BundleError: no such version, or another has become champion since the comparison.
        """
        with self._locked():
            state = self._load()
            self.known(version)
            if version == state[CHAMPION]:
                return
            if over != "" and over != state[CHAMPION]:
                raise BundleError(
                    f"another was first: {state[CHAMPION]} is champion since", where=self.root,
                    fix="run the same command again, which compares with it",
                )  # fmt: skip
            self._write(_moved(state, version, "promote", evidence))

    def previous(self) -> str:
        """The champion that a rollback brings back.

        Raises:
            BundleError: there was no champion before, or its folder is gone.
        """
        return self._previous(self._load())

    def _previous(self, state: dict[str, Any]) -> str:
        standing = _standing(state["history"])
        if len(standing) < 2:
            raise BundleError(
                "no champion before this one to go back to",
                where=self.root,
                value=state[CHAMPION],
                fix="run `recsys promote` in the next round: the champion before stays here",
            )
        return self.known(standing[-2]["version"])

    def rollback(self) -> str:
        """Undo the last promotion that stands; returns the champion that is back.

        Raises:
            BundleError: there was no champion before, or its folder is gone.
        """
        with self._locked():
            state = self._load()
            version = self._previous(state)
            self._write(_moved(state, version, "rollback"))
            return version

    def _place(self, version: str) -> Place:
        return self._bundles / version

    def _write(self, state: dict[str, Any]) -> None:
        """Make a state the one that holds."""
        write_json(self._file, state)
        sync(self._file.parent)

    def _load(self) -> dict[str, Any]:
        """The state that holds."""
        try:
            return self._checked(self._file.read_bytes(), self._file)
        except FileNotFoundError:
            return empty_state()
        except OSError as error:
            raise _broken(f"cannot be read: {error.strerror}", self._file) from None

    @staticmethod
    def _checked(data: bytes | None, where: object) -> dict[str, Any]:
        """A state that was written."""
        try:
            state = json.loads(data or b"")
        except (ValueError, RecursionError) as error:
            raise _broken(f"not valid JSON: {error}", where) from None
        if not isinstance(state, dict) or state.get("format") != FORMAT_VERSION:
            raise _broken(f"not a registry of format {FORMAT_VERSION}", where)
        try:
            standing = _standing(state["history"])
            for move in state["history"]:
                if not isinstance(move["promoted_at"], str):
                    raise TypeError("no moment")
                if not isinstance(move.get("evidence", {}), dict):
                    raise TypeError("no evidence")
            consistent = state[CHAMPION] == (standing[-1]["version"] if standing else None)
        except (KeyError, TypeError, IndexError):
            raise _broken("the history cannot be read", where) from None
        if not consistent:
            raise _broken("the champion is not the one that the history leads to", where)
        return state

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time; the system lets go of the lock of a process that dies."""
        self._bundles.mkdir(parents=True, exist_ok=True)
        with (self._file.parent / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def check_added(root: Place, bundle_dir: Path, version: str) -> None:
    """Refuse to add what is no bundle, or under an unfit name.

    Raises:
        BundleError: so it is.
    """
    if not _VERSION.fullmatch(version) or version == CHAMPION:
        raise BundleError(
            "not a version name", where=root, value=version,
            fix=f"use letters, digits, '.', '_' and '-', and not {CHAMPION!r}",
        )  # fmt: skip
    if not (bundle_dir / _MANIFEST).is_file():
        raise BundleError(
            f"not a bundle: it has no {_MANIFEST}", where=bundle_dir, fix="run `evaluate` first"
        )


def empty_state() -> dict[str, Any]:
    """Of a registry that has seen no move."""
    return {"format": FORMAT_VERSION, CHAMPION: None, "history": []}


def _moved(
    state: dict[str, Any], version: str, action: str, evidence: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The state after one more move."""
    move = {
        "version": version,
        "promoted_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "previous": state[CHAMPION],
        "action": action,
        **({"evidence": evidence} if evidence else {}),
    }
    return {"format": FORMAT_VERSION, CHAMPION: version, "history": [*state["history"], move]}


def _broken(problem: str, where: object) -> BundleError:
    return BundleError(
        problem,
        where=where,
        fix="restore it from a backup, or move it aside and promote a version again: "
        "the bundles are untouched",
    )


def _standing(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The promotions that lead to today's champion, without those that were rolled back."""
    standing: list[dict[str, Any]] = []
    for move in history:
        before = standing[-1]["version"] if standing else None
        if move["action"] == "rollback":
            standing.pop()
        elif move["action"] == "promote":
            standing.append(move)
        else:
            raise TypeError("an unknown action")
        if move["previous"] != before or move["version"] != standing[-1]["version"]:
            raise TypeError("moves that do not follow each other")
    return standing


def content_of(bundle: Path) -> dict[str, Any]:
    """The identity of a bundle: all but what another evaluation changes, or a release added."""
    meta = read_json(bundle / _MANIFEST, "write the bundle again", {}, BundleError)
    return {key: value for key, value in meta.items() if key not in _BESIDE}


def _copy_tree(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=_link_or_copy)
    for folder, _, files in os.walk(target):
        for name in files:
            sync(Path(folder, name))
        sync(Path(folder))


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)
