"""The item store in a SQLite file of its own, shared by all replicas of a machine.

Changes are rare and reads short, so the file keeps SQLite's plain journal; a commit is synced to
disk before it returns.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from recsys.errors import DataError
from recsys.state.items import ItemChange, ItemEdit

FORMAT_VERSION = 1
#: "RayI", big-endian: tells this store's files from any other SQLite file.
APPLICATION_ID = 0x52617949
#: How long to wait for another process.
BUSY_S = 10.0

_TABLES = (
    "CREATE TABLE items (id TEXT PRIMARY KEY, version INTEGER NOT NULL, fields TEXT) WITHOUT ROWID",
    "CREATE INDEX by_version ON items (version)",
    "CREATE TABLE vectors (model TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, "
    "vector BLOB NOT NULL, PRIMARY KEY (model, id)) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT_VERSION}",
)
_VERSION = "SELECT coalesce(max(version), 0) FROM items"
_HELD = "SELECT fields FROM items WHERE id = ?"
_PUT = (
    "INSERT INTO items (id, version, fields) VALUES (?, ?, ?) ON CONFLICT (id) "
    "DO UPDATE SET version = excluded.version, fields = excluded.fields"
)
_PUT_VECTOR = (
    "INSERT OR REPLACE INTO vectors (model, id, version, vector) "
    "SELECT ?, id, version, ? FROM items WHERE id = ?"
)
_CHANGES = (
    "SELECT items.id, items.version, items.fields, vectors.vector FROM items LEFT JOIN vectors "
    "ON vectors.model = ? AND vectors.id = items.id AND vectors.version = items.version "
    "AND items.fields IS NOT NULL WHERE items.version > ? ORDER BY items.version"
)


class SqliteItems:
    """An `ItemStore` in a SQLite file; made if missing, with the folders above it.

    Args:
        path: the file.

    Raises:
        DataError: the file cannot be opened, is no such store or is of another format version.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        with self._named():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch(mode=0o600)
            except OSError as error:
                raise sqlite3.OperationalError(error.strerror) from error
            self._db = sqlite3.connect(
                path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare_file()
            except BaseException:
                self.close()
                raise

    def put(self, edits: Sequence[ItemEdit], model: str) -> int | None:
        """See `ItemStore.put`."""
        with self._write() as db:
            for each in edits:
                (held,) = db.execute(_HELD, (each.item_id,)).fetchone() or (None,)
                if held != each.before:
                    return None
            version = db.execute(_VERSION).fetchone()[0] + 1
            changed = [each for each in edits if each.after != each.before]
            db.executemany(_PUT, [(each.item_id, version, each.after) for each in changed])
            for each in edits:
                if each.vector is not None:
                    db.execute(_PUT_VECTOR, (model, each.vector.tobytes(), each.item_id))
        return len(changed)

    def remove(self, item_id: str) -> bool:
        """See `ItemStore.remove`."""
        gone = (
            f"UPDATE items SET fields = NULL, version = ({_VERSION}) + 1 "
            "WHERE id = ? AND fields IS NOT NULL"
        )
        with self._write() as db:
            return bool(db.execute(gone, (item_id,)).rowcount)

    def version(self) -> int:
        """See `ItemStore.version`."""
        with self._lock, self._named():
            return int(self._db.execute(_VERSION).fetchone()[0])

    def changes(self, since: int, model: str) -> tuple[int, list[ItemChange]]:
        """See `ItemStore.changes`."""
        with self._lock, self._named():
            rows = self._db.execute(_CHANGES, (model, since)).fetchall()
        found = [
            ItemChange(
                i, version, fields, None if blob is None else np.frombuffer(blob, np.float32)
            )
            for i, version, fields, blob in rows
        ]
        return (found[-1].version if found else since), found

    def add_vectors(self, items: Sequence[ItemChange], model: str, keep: Sequence[str]) -> None:
        """See `ItemStore.add_vectors`."""
        rows = []
        for item in items:
            assert item.vector is not None
            rows.append((model, item.item_id, item.version, item.vector.tobytes()))
        kept = [model, *keep]
        marks = ", ".join("?" * len(kept))
        with self._write() as db:
            db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows)
            db.execute(f"DELETE FROM vectors WHERE model NOT IN ({marks})", kept)

    def close(self) -> None:
        """See `ItemStore.close`."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed at the end, rolled back on an exception."""
        with self._lock, self._named(), self._db as db:
            db.execute("BEGIN IMMEDIATE")
            yield db

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn SQLite's errors into ones that name the file and the fix."""
        try:
            yield
        except sqlite3.Error as error:
            raise DataError(
                str(error), where=self._path, field="serve.state.path",
                fix="put the file on a local disk with free space, in a folder that this process "
                "may write to; if it is broken, move it aside and add the items again",
            ) from error  # fmt: skip

    def _prepare_file(self) -> None:
        """Check whose file it is, and make what is missing."""
        self._db.execute("PRAGMA synchronous = FULL")
        with self._db as db:
            db.execute("BEGIN IMMEDIATE")
            if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in _TABLES:
                    db.execute(statement)
            found = [db.execute(f"PRAGMA {p}").fetchone()[0] for p in _MARKS]
        if found != list(_MARKS.values()):
            raise DataError(
                "not a store of added items that this release reads", where=self._path,
                value=found, fix="move the file aside: a new one is made; add the items again",
            )  # fmt: skip


_MARKS = {"application_id": APPLICATION_ID, "user_version": FORMAT_VERSION}
