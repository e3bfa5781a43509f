"""Writes that only one of several writers makes.

A store that takes conditions (S3's `If-None-Match`, Google's generation, Azure's ETag) creates a
file only if there is none. HDFS through pyarrow does not, and some servers that speak S3 leave the
condition out without a word: there a lock object stands in.

A lock object is a file of each that wants it, `{name}.lock/{id}.json`, with its owner and its end.
Who wants the lock writes its own file and then lists them all: where another's has not ended, it
takes its own away. Of two that write at once at least one sees the other, so both may be refused,
and never are both let in. It needs no condition, only that a list holds what was written before.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache

from recsys.errors import StorageError
from recsys.storage.location import Location

#: Stores that may take conditions. For others fsspec looks first and writes then.
CONDITIONAL = ("s3", "gs", "abfs")
#: A lock lasts so long unless it is renewed, which is done three times as often; seconds.
LASTS_S = 60.0
#: Clocks of hosts may differ by so much; seconds.
CLOCKS_S = 15.0


def create(location: Location, name: str, data: bytes) -> bool:
    """Write a file if there is none, and say whether it was written; of several writers one does.

    Args:
        location: of the file.
        name: of the file.
        data: no other writer's.

    Raises:
        StorageError: the store fails; or it takes no conditions and another holds the lock.
    """
    if takes_conditions(location):
        return location.create(name, data)
    with locked(location, name) as lease:
        if location.read(name) is not None:
            return False
        lease.must_hold()
        location.write(name, data)
        return True


@lru_cache
def takes_conditions(location: Location) -> bool:
    """Whether a store refuses to create a file that is there; found out by trying."""
    if location.scheme not in CONDITIONAL:
        return False
    probe = f".probe-{uuid.uuid4().hex}"
    try:
        location.create(probe, b"first")
        return not location.create(probe, b"second")
    finally:
        with suppress(StorageError):
            location.remove([probe])


class Lease:
    """A lock object that is held, and renewed by a thread until it is let go."""

    def __init__(self, location: Location, name: str, owner: str) -> None:
        self._location, self._name = location, f"{name}.lock/{uuid.uuid4().hex}.json"
        self._folder, self._owner = f"{name}.lock", owner
        self._until, self._ended = 0.0, threading.Event()

    def must_hold(self) -> None:
        """See that the lock is still held, before what only its owner may do.

        Raises:
            StorageError: it could not be renewed in time: another may hold it.
        """
        if time.time() > self._until:
            raise StorageError(
                "the lock has ended, as the store did not answer for too long", value=self._folder,
                where=self._location, fix="run the same command again",
            )  # fmt: skip

    def take(self) -> None:
        """Take the lock.

        Raises:
            StorageError: another holds it.
        """
        self._write()
        try:
            for name in self._location.sizes(self._folder):
                if name != self._name:
                    self._must_have_ended(name)
        except BaseException:
            with suppress(StorageError):
                self._location.remove([self._name])
            raise
        threading.Thread(target=self._renew, name="lease", daemon=True).start()

    def release(self) -> None:
        """Let the lock go."""
        self._ended.set()
        with suppress(StorageError):  # it ends by itself
            self._location.remove([self._name])

    def _must_have_ended(self, name: str) -> None:
        data = self._location.read(name)
        if data is None:
            return
        try:
            other = json.loads(data)
            owner, until = str(other["owner"]), float(other["until"])
        except (ValueError, LookupError, TypeError):
            raise StorageError(
                "this is no lock", where=f"{self._location}/{name}",
                fix="remove it, if nothing runs there",
            ) from None  # fmt: skip
        if until + CLOCKS_S > time.time():
            raise StorageError(
                f"in use by {owner}", where=self._location, value=self._folder,
                fix="wait until it has ended, then run the same command again; the lock of one "
                f"that was killed ends {until + CLOCKS_S - time.time():.0f} s from now",
            )  # fmt: skip
        self._location.remove([name])

    def _write(self) -> None:
        until = time.time() + LASTS_S
        data = {"owner": self._owner, "until": until}
        self._location.write(self._name, json.dumps(data).encode())
        self._until = until

    def _renew(self) -> None:
        while not self._ended.wait(LASTS_S / 3):
            with suppress(StorageError):  # tried again; see `must_hold`
                self._write()
        with suppress(StorageError):  # the last renewal may have come after the release
            self._location.remove([self._name])


def holder() -> str:
    """The name of this process, for who finds a lock held."""
    return f"process {os.getpid()} on {socket.gethostname()}"


@contextmanager
def locked(location: Location, name: str) -> Iterator[Lease]:
    """Hold a lock object in the block.

    Raises:
        StorageError: another holds it.
    """
    lease = Lease(location, name, holder())
    lease.take()
    try:
        yield lease
    finally:
        lease.release()
