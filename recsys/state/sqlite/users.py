"""User histories in one SQLite file: the embedded default, shared by all replicas of a machine.

Durability: WAL with `synchronous=FULL`. An append is synced to disk before it answers, so an
accepted event outlives a power cut; `NORMAL` would be faster but lose the last commits then, and
nothing that was accepted may be lost (https://sqlite.org/pragma.html#pragma_synchronous).

One table of histories, clustered by (user, event id): an append finds a repeated event and a read
finds all of its user's events in one place of one tree. They are sorted on the way out; the cap
keeps that short. Beside it: the outbox, the batch that is claimed of it, and the tombstones.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from recsys.arrays import Strings
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
from recsys.state.sqlite import statements as sql
from recsys.state.sqlite.file import UserFile
from recsys.state.tombstones import Tombstone

#: Users in a step of `sweep`: other writers wait while it lasts.
SWEEP_USERS = 1000


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
        self._file, self._cap, self._max_age_us = UserFile(path), max_events_per_user, max_age_us

    def append(self, events: Sequence[StateEvent]) -> list[Outcome]:
        """See `UserState.append`."""
        if not events:
            return []
        with self._file.write() as db:
            erased = self._erased_among(db, events)
            outcomes = [self._add(db, each, is_erased=each.user_id in erased) for each in events]
            new = [each for each, became in zip(events, outcomes, strict=True) if became == "new"]
            db.executemany(
                sql.SEND,
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
        with self._file.read() as db:
            rows = db.execute(sql.HISTORY, (user_id,)).fetchall()
        # A column of SQLite holds any type, on a damaged page too.
        if not all(tuple(map(type, row)) == sql.TYPES for row in rows):
            raise self._file.broken("events of other types than were stored")
        if (oldest := oldest_us(self._max_age_us)) is not None:
            rows = [row for row in rows if row[0] >= oldest]
        rows.sort()  # by (timestamp, item, id): the order of `order`; quicker here than in SQLite
        return [
            StateEvent(user_id, event_id, item, code, us)
            for us, item, event_id, code in rows[max(len(rows) - limit, 0) :]
        ]

    def delete(self, user_id: str, now_us: int) -> Erasure:
        """See `UserState.delete`; the freed bytes are overwritten."""
        with self._file.write() as db:
            rows = db.execute(sql.OF_USER, {"user": user_id}).fetchall()
            events = [StateEvent(*row) for row in rows]
            num_events = db.execute("DELETE FROM events WHERE user = ?", (user_id,)).rowcount
            db.execute("DELETE FROM outbox WHERE user = ?", (user_id,))
            left = tombstone_of(events, now_us)
            db.execute(sql.ERASE, (user_id, left.until_us, left.at_us))
            db.executemany(
                "INSERT OR IGNORE INTO ahead (user, digest) VALUES (?, ?)",
                ((user_id, digest) for digest in left.ahead),
            )
        return Erasure(num_events, bool(events))

    def erased(self) -> dict[str, Tombstone]:
        """See `UserState.erased`."""
        with self._file.read() as db:
            return _tombstones(db)

    def claim(self, limit: int) -> Batch | None:
        """See `UserState.claim`."""
        with self._file.write() as db:
            found = db.execute("SELECT id, last FROM batch").fetchone()
            if found is None:
                last = db.execute(sql.LAST, (limit,)).fetchone()[0]
                if last is None:
                    return None
                found = (new_batch_id(), last)
                db.execute("INSERT INTO batch (id, last) VALUES (?, ?)", found)
        with self._file.read() as db:
            rows = db.execute(sql.WAITING, (found[1],)).fetchall()
        return Batch(found[0], [StateEvent(*row) for row in rows])

    def settle(self, batch_id: str) -> None:
        """See `UserState.settle`."""
        with self._file.write() as db:
            found = db.execute("SELECT last FROM batch WHERE id = ?", (batch_id,)).fetchone()
            if found is not None:
                db.execute("DELETE FROM outbox WHERE seq <= ?", found)
                db.execute("DELETE FROM batch")

    def num_waiting(self) -> int:
        """See `UserState.num_waiting`."""
        with self._file.read() as db:
            return int(db.execute("SELECT count(*) FROM outbox").fetchone()[0])

    def sweep(self) -> None:
        """See `UserState.sweep`."""
        oldest, low = oldest_us(self._max_age_us), ""
        while oldest is not None:
            with self._file.read() as db:
                high = db.execute(sql.NEXT_USERS, (low, SWEEP_USERS)).fetchone()[0]
            if high is None:
                return
            with self._file.write() as db:
                db.execute(
                    "DELETE FROM events WHERE user > ? AND user <= ? AND us < ?",
                    (low, high, oldest),
                )
            low = high

    def seed(
        self,
        table: pa.Table,
        item_ids: Strings,
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
        with self._file.write() as db:
            if db.execute(sql.SEEDED, (source,)).fetchone()[0]:
                return False
            live = [
                row
                for user in users
                for row in db.execute(sql.LIVE, {"user": user, **sql.SEEDED_IDS})
            ]
            new = lasting(unheld(seeds, live), _tombstones(db), None)
            db.executemany(sql.INSERT, new.select(EVENT_COLUMNS).iter_rows())
            for user in users:
                self._trim(db, user)
            db.execute("INSERT INTO meta (key, value) VALUES ('seeded_from', ?)", (source,))
        self._file.truncate_log()
        return True

    def is_seeded(self, source: str) -> bool:
        """See `UserState.is_seeded`."""
        with self._file.read() as db:
            return bool(db.execute(sql.SEEDED, (source,)).fetchone()[0])

    def count_users(self) -> int:
        """See `UserState.count_users`."""
        with self._file.read() as db:
            return int(db.execute(sql.COUNT_USERS).fetchone()[0])

    def ping(self) -> None:
        """See `UserState.ping`."""
        with self._file.read() as db:
            db.execute("SELECT 1 FROM events LIMIT 1").fetchone()

    def close(self) -> None:
        """See `UserState.close`."""
        self._file.close()

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
            if db.execute(sql.IS_ERASED, asked).fetchone():
                return "erased"
        if held := db.execute(sql.SAME_ID, (user, event.event_id)).fetchone():
            there = StateEvent(user, event.event_id, *held)
            return "repeated" if is_same(there, event) else "conflict"
        if db.execute(sql.SAME_ID, (user, seed_id(event))).fetchone():
            return "repeated"
        db.execute(sql.INSERT, (user, event.event_id, event.item_id, event.event_code, us))
        return "new"

    def _trim(self, db: sqlite3.Connection, user: str) -> None:
        if (oldest := oldest_us(self._max_age_us)) is not None:
            db.execute("DELETE FROM events WHERE user = ? AND us < ?", (user, oldest))
        if db.execute(sql.COUNT, (user,)).fetchone()[0] > self._cap:
            db.execute(sql.TRIM, {"user": user, "cap": self._cap})


def _tombstones(db: sqlite3.Connection) -> dict[str, Tombstone]:
    ahead = defaultdict(set)
    for user, digest in db.execute("SELECT user, digest FROM ahead"):
        ahead[user].add(digest)
    return {
        user: Tombstone(at, until, frozenset(ahead[user]))
        for user, at, until in db.execute("SELECT user, coalesce(at, us), us FROM erased")
    }
