"""User histories in one SQLite file: the embedded default, shared by all replicas of a machine.

Durability: WAL with `synchronous=FULL`. An append is synced to disk before it answers, so an
accepted event outlives a power cut; `NORMAL` would be faster but lose the last commits then, and
nothing that was accepted may be lost (https://sqlite.org/pragma.html#pragma_synchronous).

Sharing: readers never wait for the writer, nor it for them; writers take turns, across processes
too. WAL needs shared memory, so the file must lie on a local disk, and all replicas on that
machine.

One table of histories, clustered by (user, event id): an append finds a repeated event and a read
finds all of its user's events in one place of one tree. They are sorted on the way out; the cap
keeps that short. Beside it: the outbox, the batch that is claimed of it, and the tombstones.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.errors import DataError
from recsys.state.base import (
    Batch,
    Erasure,
    Outcome,
    StateEvent,
    digest_of,
    is_same,
    new_batch_id,
    oldest_us,
    tombstone_of,
)
from recsys.state.seeding import (
    EVENT_COLUMNS,
    SEED_PREFIX,
    lasting,
    seed_events,
    seed_id,
    unheld,
)
from recsys.state.tombstones import Tombstone

#: 2: outbox, batch and erased. 3: `outbox.details`, `erased.at` and `ahead`. A file of an earlier
#: format gets what it lacks when it is opened.
FORMAT_VERSION = 3
#: "Rayc", big-endian: tells this store's files from any other SQLite file.
APPLICATION_ID = 0x52617963
#: How long a writer waits for another one; a seed holds the file for seconds.
BUSY_S = 60.0
#: Users in a step of `sweep`: other writers wait while it lasts.
SWEEP_USERS = 1000

_TABLES = (
    "CREATE TABLE IF NOT EXISTS events (user TEXT NOT NULL, id TEXT NOT NULL, item TEXT NOT NULL, "
    "code INTEGER NOT NULL, us INTEGER NOT NULL, PRIMARY KEY (user, id)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS meta (key TEXT NOT NULL, value TEXT NOT NULL, "
    "PRIMARY KEY (key, value)) WITHOUT ROWID",
    # A sequence number is never given twice, not after its row is gone: an erased user's place in a
    # claimed batch must not fall to an event that came later.
    "CREATE TABLE IF NOT EXISTS outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT NOT NULL, "
    "id TEXT NOT NULL, item TEXT NOT NULL, code INTEGER NOT NULL, us INTEGER NOT NULL, "
    "details TEXT)",
    "CREATE TABLE IF NOT EXISTS batch (id TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS erased (user TEXT PRIMARY KEY, us INTEGER NOT NULL, at INTEGER) "
    "WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS ahead (user TEXT NOT NULL, digest TEXT NOT NULL, "
    "PRIMARY KEY (user, digest)) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT_VERSION}",
)
#: What the tables of format 2 lack.
_FROM_2 = ("ALTER TABLE outbox ADD COLUMN details TEXT", "ALTER TABLE erased ADD COLUMN at INTEGER")
_INSERT = (
    "INSERT INTO events (user, id, item, code, us) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (user, id) DO NOTHING"
)
_HISTORY = "SELECT us, item, id, code FROM events WHERE user = ?"
_TYPES = (int, str, str, int)
_COUNT = "SELECT count(*) FROM events WHERE user = ?"
_TRIM = (
    "DELETE FROM events WHERE user = :user AND id IN (SELECT id FROM events WHERE user = :user "
    "ORDER BY us DESC, item DESC, id DESC LIMIT -1 OFFSET :cap)"
)
# Where `at` is null, an earlier release has written the row.
_IS_ERASED = (
    "SELECT 1 FROM erased WHERE user = :user AND us >= :us AND (coalesce(at, us) >= :us "
    "OR EXISTS (SELECT 1 FROM ahead WHERE user = :user AND digest = :digest))"
)
_SAME_ID = "SELECT item, code, us FROM events WHERE user = ? AND id = ?"
_SEND = "INSERT INTO outbox (user, id, item, code, us, details) VALUES (?, ?, ?, ?, ?, ?)"
_WAITING = "SELECT user, id, item, code, us, details FROM outbox WHERE seq <= ? ORDER BY seq"
_LAST = "SELECT max(seq) FROM (SELECT seq FROM outbox ORDER BY seq LIMIT ?)"
_OF_USER = (
    "SELECT user, id, item, code, us FROM events WHERE user = :user "
    "UNION ALL SELECT user, id, item, code, us FROM outbox WHERE user = :user"
)
_ERASE = (
    "INSERT INTO erased (user, us, at) VALUES (?, ?, ?) ON CONFLICT (user) "
    "DO UPDATE SET us = max(us, excluded.us), at = max(coalesce(at, us), excluded.at)"
)
#: The events of a user that were not seeded: their ids lie before and after those with the prefix.
_LIVE = (
    "SELECT user, us, item, code FROM events WHERE user = :user AND id < :first "
    "UNION ALL SELECT user, us, item, code FROM events WHERE user = :user AND id >= :last"
)
_SEEDED_IDS = {"first": SEED_PREFIX, "last": SEED_PREFIX[:-1] + chr(ord(SEED_PREFIX[-1]) + 1)}
# Leaps from user to user; count(DISTINCT user) would read every event.
_COUNT_USERS = (
    "WITH RECURSIVE leap (user) AS (SELECT min(user) FROM events UNION ALL "
    "SELECT (SELECT min(user) FROM events WHERE user > leap.user) FROM leap "
    "WHERE leap.user IS NOT NULL) SELECT count(user) FROM leap"
)
_NEXT_USERS = (
    "SELECT max(user) FROM (SELECT DISTINCT user FROM events WHERE user > ? ORDER BY user LIMIT ?)"
)
_SEEDED = "SELECT count(*) FROM meta WHERE key = 'seeded_from' AND value = ?"


class SqliteState:
    """A `UserState` in a SQLite file; made if missing, with the folders above it.

    Args:
        path: the file.
        max_events_per_user: the cap; see `UserState.append`.
        max_age_us: an older event has expired; None: none does.

    Raises:
        DataError: the file cannot be opened, is no such store or is of another format version.
    """

    def __init__(self, path: Path, max_events_per_user: int, max_age_us: int | None = None) -> None:
        self._path, self._cap, self._max_age_us = path, max_events_per_user, max_age_us
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

    def append(self, events: Sequence[StateEvent]) -> list[Outcome]:
        """See `UserState.append`."""
        if not events:
            return []
        with self._write() as db:
            erased = self._erased_among(db, events)
            outcomes = [self._add(db, each, is_erased=each.user_id in erased) for each in events]
            new = [each for each, became in zip(events, outcomes, strict=True) if became == "new"]
            db.executemany(
                _SEND,
                (
                    (e.user_id, e.event_id, e.item_id, e.event_code, e.timestamp, e.details)
                    for e in new
                    if not e.event_id.startswith(SEED_PREFIX)
                ),
            )
            for user in {each.user_id for each in new}:
                self._trim(db, user)
        return outcomes

    def history(self, user_id: str, limit: int) -> list[StateEvent]:
        """See `UserState.history`."""
        with self._read() as db:
            rows = db.execute(_HISTORY, (user_id,)).fetchall()
        # A column of SQLite holds any type, on a damaged page too.
        if not all(tuple(map(type, row)) == _TYPES for row in rows):
            raise DataError(
                "events of other types than were stored", where=self._path,
                field="serve.state.path", fix=_FIX_BROKEN,
            )  # fmt: skip
        if (oldest := oldest_us(self._max_age_us)) is not None:
            rows = [row for row in rows if row[0] >= oldest]
        rows.sort()  # by (timestamp, item, id): the order of `order`; quicker here than in SQLite
        return [
            StateEvent(user_id, event_id, item, code, us)
            for us, item, event_id, code in rows[max(len(rows) - limit, 0) :]
        ]

    def delete(self, user_id: str, now_us: int) -> Erasure:
        """See `UserState.delete`; the freed bytes are overwritten."""
        with self._write() as db:
            rows = db.execute(_OF_USER, {"user": user_id}).fetchall()
            events = [StateEvent(*row) for row in rows]
            num_events = db.execute("DELETE FROM events WHERE user = ?", (user_id,)).rowcount
            db.execute("DELETE FROM outbox WHERE user = ?", (user_id,))
            left = tombstone_of(events, now_us)
            db.execute(_ERASE, (user_id, left.until_us, left.at_us))
            db.executemany(
                "INSERT OR IGNORE INTO ahead (user, digest) VALUES (?, ?)",
                ((user_id, digest) for digest in left.ahead),
            )
        return Erasure(num_events, bool(events))

    def erased(self) -> dict[str, Tombstone]:
        """See `UserState.erased`."""
        with self._read() as db:
            return _tombstones(db)

    def claim(self, limit: int) -> Batch | None:
        """See `UserState.claim`."""
        with self._write() as db:
            found = db.execute("SELECT id, last FROM batch").fetchone()
            if found is None:
                last = db.execute(_LAST, (limit,)).fetchone()[0]
                if last is None:
                    return None
                found = (new_batch_id(), last)
                db.execute("INSERT INTO batch (id, last) VALUES (?, ?)", found)
        with self._read() as db:
            rows = db.execute(_WAITING, (found[1],)).fetchall()
        return Batch(found[0], [StateEvent(*row) for row in rows])

    def settle(self, batch_id: str) -> None:
        """See `UserState.settle`."""
        with self._write() as db:
            found = db.execute("SELECT last FROM batch WHERE id = ?", (batch_id,)).fetchone()
            if found is not None:
                db.execute("DELETE FROM outbox WHERE seq <= ?", found)
                db.execute("DELETE FROM batch")

    def num_waiting(self) -> int:
        """See `UserState.num_waiting`."""
        with self._read() as db:
            return int(db.execute("SELECT count(*) FROM outbox").fetchone()[0])

    def sweep(self) -> None:
        """See `UserState.sweep`."""
        oldest, low = oldest_us(self._max_age_us), ""
        while oldest is not None:
            with self._read() as db:
                high = db.execute(_NEXT_USERS, (low, SWEEP_USERS)).fetchone()[0]
            if high is None:
                return
            with self._write() as db:
                db.execute(
                    "DELETE FROM events WHERE user > ? AND user <= ? AND us < ?",
                    (low, high, oldest),
                )
            low = high

    def seed(
        self,
        table: pa.Table,
        item_ids: NDArray[np.str_],
        max_events_per_user: int,
        *,
        source: str,
        erased: Mapping[str, Tombstone] | None = None,
    ) -> bool:
        """See `UserState.seed`; of several replicas at once, one seeds and the others wait."""
        if self.is_seeded(source):
            return False
        seeds = seed_events(table, item_ids, max_events_per_user)
        seeds = lasting(seeds, erased or {}, oldest_us(self._max_age_us))
        users = seeds["user"].unique().to_list()
        with self._write() as db:
            if db.execute(_SEEDED, (source,)).fetchone()[0]:
                return False
            live = [
                row for user in users for row in db.execute(_LIVE, {"user": user, **_SEEDED_IDS})
            ]
            new = lasting(unheld(seeds, live), _tombstones(db), None)
            db.executemany(_INSERT, new.select(EVENT_COLUMNS).iter_rows())
            for user in users:
                self._trim(db, user)
            db.execute("INSERT INTO meta (key, value) VALUES ('seeded_from', ?)", (source,))
        with self._write_lock, self._named():  # else the log of all this stays as large as it is
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return True

    def is_seeded(self, source: str) -> bool:
        """See `UserState.is_seeded`."""
        with self._read() as db:
            return bool(db.execute(_SEEDED, (source,)).fetchone()[0])

    def count_users(self) -> int:
        """See `UserState.count_users`."""
        with self._read() as db:
            return int(db.execute(_COUNT_USERS).fetchone()[0])

    def ping(self) -> None:
        """See `UserState.ping`."""
        with self._read() as db:
            db.execute("SELECT 1 FROM events LIMIT 1").fetchone()

    def close(self) -> None:
        """See `UserState.close`."""
        with self._read_lock, self._write_lock:
            self._reader.close()
            self._writer.close()

    def _erased_among(self, db: sqlite3.Connection, events: Sequence[StateEvent]) -> set[str]:
        """Those of the events' users who were ever erased: few, and nothing is asked of others."""
        users = {each.user_id for each in events}
        is_erased = "SELECT count(*) FROM erased WHERE user = ?"
        return {user for user in users if db.execute(is_erased, (user,)).fetchone()[0]}

    def _add(self, db: sqlite3.Connection, event: StateEvent, *, is_erased: bool) -> Outcome:
        """Add one event to the history, if it is new."""
        user, us = event.user_id, event.timestamp
        if is_erased:
            asked = {"user": user, "us": us, "digest": digest_of(event)}
            if db.execute(_IS_ERASED, asked).fetchone():
                return "erased"
        if held := db.execute(_SAME_ID, (user, event.event_id)).fetchone():
            there = StateEvent(user, event.event_id, *held)
            return "repeated" if is_same(there, event) else "conflict"
        if db.execute(_SAME_ID, (user, seed_id(event))).fetchone():
            return "repeated"
        db.execute(_INSERT, (user, event.event_id, event.item_id, event.event_code, us))
        return "new"

    def _trim(self, db: sqlite3.Connection, user: str) -> None:
        if (oldest := oldest_us(self._max_age_us)) is not None:
            db.execute("DELETE FROM events WHERE user = ? AND us < ?", (user, oldest))
        if db.execute(_COUNT, (user,)).fetchone()[0] > self._cap:
            db.execute(_TRIM, {"user": user, "cap": self._cap})

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._read_lock, self._named():
            yield self._reader

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed at the end, rolled back on an exception."""
        with self._write_lock, self._named(), self._writer as db:
            db.execute("BEGIN IMMEDIATE")
            yield db

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
            raise DataError(
                "the file is damaged", where=self._path, field="serve.state.path", fix=_FIX_BROKEN
            ) from error

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
                for statement in (*(_FROM_2 if found == 2 else ()), *_TABLES):
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


def _tombstones(db: sqlite3.Connection) -> dict[str, Tombstone]:
    ahead = defaultdict(set)
    for user, digest in db.execute("SELECT user, digest FROM ahead"):
        ahead[user].add(digest)
    return {
        user: Tombstone(at, until, frozenset(ahead[user]))
        for user, at, until in db.execute("SELECT user, coalesce(at, us), us FROM erased")
    }
