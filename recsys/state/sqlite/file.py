"""The user store's SQLite file: opening, format, connections, errors that name it.

Sharing: readers never wait for the writer, nor it for them; writers take turns, across processes
too. WAL needs shared memory, so the file must lie on a local disk, and all replicas on that
machine.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.errors import DataError
from recsys.state.sqlite.statements import APPLICATION_ID, FORMAT_VERSION, FROM_2, TABLES

#: How long a writer waits for another one; a seed holds the file for seconds.
BUSY_S = 60.0

_FIX_BROKEN = (
    "restore the file from a backup, or move it aside: a new one is made and seeded from the bundle"
)
_FIX_UNREACHABLE = (
    "put the file on a local disk with free space, in a folder that this process may write to"
)
_FIXES = {
    sqlite3.SQLITE_NOTADB: _FIX_BROKEN,
    sqlite3.SQLITE_CORRUPT: _FIX_BROKEN,
    sqlite3.SQLITE_BUSY: "try again; if it stays so, end the process that holds the file",
}


class UserFile:
    """The file, under two connections: one reads, one writes. Safe to use from several threads.

    Args:
        path: the file; made if missing, with the folders above it.

    Raises:
        DataError: the file cannot be opened, is no such store or is of another format version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Two connections, so that reads go on while a write waits for the disk or for its turn.
        self._read_lock, self._write_lock = threading.Lock(), threading.Lock()
        with self._named():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch(mode=0o600)  # nobody else's to read; the files beside it take this over
            except OSError as error:
                raise sqlite3.OperationalError(error.strerror) from error
            self._writer, self._reader = self._connect(), self._connect()
            try:
                self._prepare_file()
            except BaseException:
                self.close()
                raise
            self._reader.execute("PRAGMA query_only = ON")

    def close(self) -> None:
        """Close both connections, once nobody uses them."""
        with self._read_lock, self._write_lock:
            self._reader.close()
            self._writer.close()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """The connection that reads alone."""
        with self._read_lock, self._named():
            yield self._reader

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed at the end, rolled back on an exception."""
        with self._write_lock, self._named(), self._writer as db:
            db.execute("BEGIN IMMEDIATE")
            yield db

    def truncate_log(self) -> None:
        """Move the write-ahead log into the file: else it stays as large as it is."""
        with self._write_lock, self._named():
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def broken(self, problem: str) -> DataError:
        """What to raise where the content is damaged."""
        return DataError(problem, where=self._path, field="serve.state.path", fix=_FIX_BROKEN)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn SQLite's errors into ones that name the file and the fix."""
        try:
            yield
        except sqlite3.Error as error:
            fix = _FIXES.get(_primary_code(error), _FIX_UNREACHABLE)
            raise DataError(
                str(error), where=self._path, field="serve.state.path", fix=fix
            ) from error
        except UnicodeDecodeError as error:  # a message of SQLite's that quotes a damaged page
            raise self.broken("the file is damaged") from error

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )

    def _prepare_file(self) -> None:
        """Check whose file it is before anything is changed in it, then make what is missing."""
        db = self._writer
        with db:
            db.execute("BEGIN")
            num_tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            application = db.execute("PRAGMA application_id").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
        if num_tables and application != APPLICATION_ID:
            raise DataError("a SQLite file of another program", where=self._path, fix=_FIX_BROKEN)
        if num_tables and version not in range(1, FORMAT_VERSION + 1):
            raise DataError(
                f"user state of format {version}, this release reads {FORMAT_VERSION}",
                where=self._path,
                fix="serve with the release that wrote it, or move the file aside: "
                "a new one is made and seeded from the bundle",
            )
        _switch_to_wal(db)
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        if version != FORMAT_VERSION:  # a new file, or one of an earlier format
            with db:
                db.execute("BEGIN IMMEDIATE")
                # Another process may have been here meanwhile.
                (found,) = db.execute("PRAGMA user_version").fetchone()
                for statement in (*(FROM_2 if found == 2 else ()), *TABLES):
                    db.execute(statement)


def _switch_to_wal(db: sqlite3.Connection) -> None:
    """Set the journal mode; several that switch a new file at once are refused, not queued."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            if mode != "wal":
                raise sqlite3.OperationalError("this file system cannot keep a write-ahead log")
            return


def _primary_code(error: sqlite3.Error) -> int:
    """SQLite's result code without its extension; 0 where the error came from elsewhere."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
