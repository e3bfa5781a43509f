"""The user store's SQLite tables and statements."""

from __future__ import annotations

from recsys.state.seeding import SEED_PREFIX

#: 2: outbox, batch and erased. 3: `outbox.details`, `erased.at` and `ahead`. A file of an earlier
#: format gets what it lacks when it is opened.
FORMAT_VERSION = 3
#: "Rayc", big-endian: tells this store's files from any other SQLite file.
APPLICATION_ID = 0x52617963

TABLES = (
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
FROM_2 = ("ALTER TABLE outbox ADD COLUMN details TEXT", "ALTER TABLE erased ADD COLUMN at INTEGER")
INSERT = (
    "INSERT INTO events (user, id, item, code, us) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (user, id) DO NOTHING"
)
HISTORY = "SELECT us, item, id, code FROM events WHERE user = ?"
TYPES = (int, str, str, int)
COUNT = "SELECT count(*) FROM events WHERE user = ?"
TRIM = (
    "DELETE FROM events WHERE user = :user AND id IN (SELECT id FROM events WHERE user = :user "
    "ORDER BY us DESC, item DESC, id DESC LIMIT -1 OFFSET :cap)"
)
# Where `at` is null, an earlier release has written the row.
IS_ERASED = (
    "SELECT 1 FROM erased WHERE user = :user AND us >= :us AND (coalesce(at, us) >= :us "
    "OR EXISTS (SELECT 1 FROM ahead WHERE user = :user AND digest = :digest))"
)
SAME_ID = "SELECT item, code, us FROM events WHERE user = ? AND id = ?"
SEND = "INSERT INTO outbox (user, id, item, code, us, details) VALUES (?, ?, ?, ?, ?, ?)"
WAITING = "SELECT user, id, item, code, us, details FROM outbox WHERE seq <= ? ORDER BY seq"
LAST = "SELECT max(seq) FROM (SELECT seq FROM outbox ORDER BY seq LIMIT ?)"
OF_USER = (
    "SELECT user, id, item, code, us FROM events WHERE user = :user "
    "UNION ALL SELECT user, id, item, code, us FROM outbox WHERE user = :user"
)
ERASE = (
    "INSERT INTO erased (user, us, at) VALUES (?, ?, ?) ON CONFLICT (user) "
    "DO UPDATE SET us = max(us, excluded.us), at = max(coalesce(at, us), excluded.at)"
)
#: The events of a user that were not seeded: their ids lie before and after those with the prefix.
LIVE = (
    "SELECT user, us, item, code FROM events WHERE user = :user AND id < :first "
    "UNION ALL SELECT user, us, item, code FROM events WHERE user = :user AND id >= :last"
)
SEEDED_IDS = {"first": SEED_PREFIX, "last": SEED_PREFIX[:-1] + chr(ord(SEED_PREFIX[-1]) + 1)}
# Leaps from user to user; count(DISTINCT user) would read every event.
COUNT_USERS = (
    "WITH RECURSIVE leap (user) AS (SELECT min(user) FROM events UNION ALL "
    "SELECT (SELECT min(user) FROM events WHERE user > leap.user) FROM leap "
    "WHERE leap.user IS NOT NULL) SELECT count(user) FROM leap"
)
NEXT_USERS = (
    "SELECT max(user) FROM (SELECT DISTINCT user FROM events WHERE user > ? ORDER BY user LIMIT ?)"
)
SEEDED = "SELECT count(*) FROM meta WHERE key = 'seeded_from' AND value = ?"
