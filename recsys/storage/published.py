"""Whole folders in a store that cannot rename: the parts first, then one manifest that names them.

    manifest.json            what is there: the attempt, and size and SHA-256 of each file
    {attempt}/{file}         the parts of one attempt to publish

A reader sees the manifest before or after, so the folder is whole or the one before. An attempt has
names of its own: nobody writes what another reads. What a dead writer left behind is named by no
manifest, and a later publication removes it, as it does the parts of the manifest before.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.errors import StorageError
from recsys.storage.location import Location
from recsys.storage.seals import file_sha256, is_sealed, json_sha256, sealed

FORMAT = 1
MANIFEST = "manifest.json"
#: Parts that no manifest names are removed at that age: a writer may still be at work, a reader may
#: still read by the manifest before.
STALE_S = 86_400.0
#: Files that are copied at once.
COPIES = 8
_TIME = "%Y%m%dT%H%M%SZ"
_ATTEMPT = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{32}")


@dataclass(frozen=True)
class Part:
    """A file of a published folder.

    Attributes:
        size: bytes.
        sha256: of the content, 64 hex digits.
    """

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a published folder holds.

    Attributes:
        attempt: whose parts they are.
        files: name -> part.
    """

    attempt: str
    files: dict[str, Part]

    @property
    def digest(self) -> str:
        """Hash of the content, 64 hex digits; the same for a folder that is published again."""
        return json_sha256({name: [part.size, part.sha256] for name, part in self.files.items()})

    def part(self, name: str) -> str:
        """Where a file lies below the published folder."""
        return f"{self.attempt}/{name}"

    def as_bytes(self) -> bytes:
        """JSON, sealed."""
        files = {name: part.__dict__ for name, part in sorted(self.files.items())}
        data = {"format": FORMAT, "attempt": self.attempt, "files": files}
        return json.dumps(sealed(data), indent=2, sort_keys=True).encode()


def manifest_of(location: Location) -> Manifest | None:
    """The manifest of a published folder; None where nothing was published.

    Raises:
        StorageError: it is damaged or of another release, or the store fails.
    """
    data = location.read(MANIFEST)
    if data is None:
        return None
    try:
        told = json.loads(data)
        if told["format"] != FORMAT or not is_sealed(told):
            raise ValueError
        if not _ATTEMPT.fullmatch(told["attempt"]):
            raise ValueError
        files = {name: Part(**part) for name, part in told["files"].items()}
        if not all(_is_relative(name) for name in files):
            raise ValueError
    except (ValueError, LookupError, TypeError, AttributeError):
        raise StorageError(
            f"no manifest of format {FORMAT}, or a damaged one", where=f"{location}/{MANIFEST}",
            fix="publish the folder again with this release: run its job again",
        ) from None  # fmt: skip
    return Manifest(told["attempt"], files)


def publish(folder: Path, location: Location) -> Manifest:
    """Publish a folder of this machine whole, in the place of what was published there.

    A folder that lies there already with the same content is left as it is.

    Args:
        folder: its files, those below it too; names that begin with a dot are left out.
        location: of the published folder.

    Raises:
        StorageError: the store fails; then the manifest before still holds.
    """
    files = {
        path.relative_to(folder).as_posix(): Part(path.stat().st_size, file_sha256(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    }
    now = dt.datetime.now(dt.UTC)
    manifest = Manifest(f"{now:{_TIME}}-{uuid.uuid4().hex}", files)
    with suppress(StorageError):  # a damaged one is replaced; if the store fails, writing tells it
        there = manifest_of(location)
        if there is not None and there.digest == manifest.digest:
            return there
    in_parallel(lambda name: location.upload(folder / name, manifest.part(name)), files)
    location.write(MANIFEST, manifest.as_bytes())
    _remove_stale(location, manifest, now)
    return manifest


def published_below(location: Location) -> list[str]:
    """Names of the folders that are published right below a location, sorted."""
    parts = (name.split("/") for name in location.sizes())
    return sorted(part[0] for part in parts if len(part) == 2 and part[1] == MANIFEST)


def unpublish(location: Location) -> None:
    """Remove a published folder, its manifest first: no reader sees it without a part."""
    location.remove(sorted(location.sizes(), key=lambda name: name != MANIFEST))


def in_parallel(work: Callable[[str], Any], names: Iterable[str]) -> None:
    """Do something for each name, some at a time; the first error ends it."""
    with ThreadPoolExecutor(COPIES, thread_name_prefix="copy") as pool:
        try:
            for _ in pool.map(work, names):
                pass
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _remove_stale(location: Location, manifest: Manifest, now: dt.datetime) -> None:
    """Remove old parts that the manifest does not name; another writer's are not old."""
    stale = []
    for name in location.sizes():
        attempt = name.partition("/")[0]
        found = _ATTEMPT.fullmatch(attempt)
        if found and attempt != manifest.attempt:
            began = dt.datetime.strptime(found[1], _TIME).replace(tzinfo=dt.UTC)
            if (now - began).total_seconds() > STALE_S:
                stale.append(name)
    location.remove(stale)


def _is_relative(name: str) -> bool:
    return bool(name) and not name.startswith("/") and ".." not in name.split("/")
