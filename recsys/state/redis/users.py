"""User histories on a Redis or Valkey server: shared by replicas on several machines.

Durability is the server's. With `appendonly yes` and `appendfsync always` an event is on disk
before the answer. With `appendfsync everysec`, the default once the append-only file is on, a crash
loses up to the last second or two; without that file, everything since the last snapshot
(https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/). A replica of the
server that takes over lacks what had not reached it.

Keys, below the prefix: `u:{user}` is a hash of the user's events, `outbox` a stream of those that
wait for `claim`, `erased` a hash of tombstones, `meta` holds the format, the outbox's sequence
number and the claimed batch, `seeded` the sources. What a script writes spans several keys, so one
primary holds them all: no Redis Cluster.

A hash, by memory: with 100 events a user one seeded event takes 27 bytes, and 63 under a sender's
id of 32 characters; 86 and 126 with 600, where the server leaves its compact encoding
(hash-max-listpack-entries 512; Redis 7.0, jemalloc). A sorted set took 32 to 171.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from operator import itemgetter
from typing import cast

import polars as pl
import pyarrow as pa
import redis

from recsys.arrays import Strings
from recsys.errors import DataError
from recsys.state.base import (
    Batch,
    Erasure,
    Outcome,
    StateEvent,
    digest_of,
    new_batch_id,
    oldest_us,
    order,
    tombstone_of,
)
from recsys.state.redis.connection import Connection
from recsys.state.redis.opening import check_format, warn_of_losses
from recsys.state.redis.packing import (
    event_of,
    field_of,
    pack,
    pack_time,
    packed_of,
    seeded_field,
    unpack_time,
    waiting_event,
)
from recsys.state.redis.scripts import APPEND, DELETE, SEED, SETTLE, SWEEP
from recsys.state.seeding import EVENT_COLUMNS, lasting, seed_events
from recsys.state.tombstones import Tombstone

#: Seeded events sent at once: others wait while the server adds them.
CHUNK = 5000
#: Users in a step of `sweep`.
SWEEP_USERS = 100
#: How often an erasure begins anew because something of the user came meanwhile.
MAX_TRIES = 100
#: A user's key outlives the last write by the maximal age and so much: clocks differ.
_SLACK_S = 86_400
#: By the code that `scripts.APPEND` gives.
_OUTCOMES: tuple[Outcome, ...] = ("new", "repeated", "conflict", "erased")


class RedisState:
    """A `UserState` on a server.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`, as the package `redis` reads it; its
            password stands in no message.
        prefix: begin of all keys; stores with different ones do not meet.
        max_events_per_user: the cap; see `UserState.append`.
        max_age_us: an older event has expired; None: none does. With it, a user who is not written
            to for so long goes by the server's own expiry.

    Raises:
        DataError: the URL is none, the server cannot be reached, or the store under this prefix is
            of another format version.
    """

    def __init__(
        self, url: str, prefix: str, max_events_per_user: int, max_age_us: int | None = None
    ) -> None:
        self._prefix, self._cap, self._is_closed = prefix, max_events_per_user, False
        self._max_age_us = max_age_us
        self._meta, self._sources = f"{prefix}:meta", f"{prefix}:seeded"
        self._outbox, self._erased = f"{prefix}:outbox", f"{prefix}:erased"
        self._ahead = f"{self._erased}:ahead"
        self._server = Connection(url)
        self._client, self._name = self._server.client, self._server.name
        self._append = self._client.register_script(APPEND)
        self._seed = self._client.register_script(SEED)
        self._delete = self._client.register_script(DELETE)
        self._settle = self._client.register_script(SETTLE)
        self._sweep = self._client.register_script(SWEEP)
        try:
            check_format(self._server, prefix)
            warn_of_losses(self._server)
        except BaseException:
            self.close()
            raise

    def append(self, events: Sequence[StateEvent]) -> list[Outcome]:
        """See `UserState.append`; as durable as the server's `appendfsync` makes it."""
        if not events:
            return []
        # The place of a user in Lua's KEYS, counted from 1; four others come first.
        places = {user: at for at, user in enumerate({e.user_id: None for e in events}, start=5)}
        arguments = self._options()
        for each in events:
            told = (digest_of(each).encode(), (each.details or "").encode(), int(each.is_timed))
            arguments += (places[each.user_id], field_of(each), packed_of(each), *told)
        with self._named():
            codes = cast(list[int], self._append(keys=self._keys(places), args=arguments))
        return [_OUTCOMES[code] for code in codes]

    def history(self, user_id: str, limit: int) -> list[StateEvent]:
        """See `UserState.history`."""
        with self._named():
            fields = cast(dict[bytes, bytes], self._client.hgetall(self._user(user_id)))
        events = sorted((event_of(user_id, *pair) for pair in fields.items()), key=order)
        if (oldest := oldest_us(self._max_age_us)) is not None:
            events = [event for event in events if event.timestamp >= oldest]
        return events[max(len(events) - limit, 0) :]

    def delete(self, user_id: str, now_us: int) -> Erasure:
        """See `UserState.delete`; the append-only file holds the events until it is rewritten.

        All in one step, once nothing came of the user while it was looked for.
        """
        key = self._user(user_id)
        with self._named(), self._client.pipeline() as pipe:
            for _ in range(MAX_TRIES):
                pipe.watch(key)  # type: ignore[no-untyped-call]  # whatever is new of the user changes it, in the outbox or not
                fields = cast(dict[bytes, bytes], self._client.hgetall(key))
                events = [event_of(user_id, *pair) for pair in fields.items()]
                waiting: list[bytes] = []
                for entries in self._entries("+"):
                    mine = [(entry, event) for entry, event in entries if event.user_id == user_id]
                    waiting += (entry for entry, _ in mine)
                    events += (event for _, event in mine)
                left = tombstone_of(events, now_us)
                times = (pack_time(left.until_us), pack_time(left.at_us))
                pipe.multi()
                self._delete(
                    keys=[key, self._erased, self._ahead],
                    args=[user_id, *times, *sorted(left.ahead)], client=pipe,
                )  # fmt: skip
                if waiting:
                    pipe.xdel(self._outbox, *waiting)
                try:
                    num_events = int(pipe.execute()[0])
                except redis.WatchError:
                    continue
                return Erasure(num_events, bool(events))
        raise DataError(
            "events of the user came faster than they could be erased", where=self._name,
            fix="erase the user again",
        )  # fmt: skip

    def erased(self) -> dict[str, Tombstone]:
        """See `UserState.erased`."""
        ahead: dict[str, set[str]] = defaultdict(set)
        with self._named():
            found = cast(dict[bytes, bytes], self._client.hgetall(self._erased))
            for member in self._client.sscan_iter(self._ahead, count=1000):
                user, _, text = member.decode().rpartition(":")
                ahead[user].add(text)
        # An earlier release wrote one time.
        times = {user.decode(): (packed[-8:], packed[:8]) for user, packed in found.items()}
        return {
            user: Tombstone(unpack_time(at), unpack_time(until), frozenset(ahead[user]))
            for user, (at, until) in times.items()
        }

    def claim(self, limit: int) -> Batch | None:
        """See `UserState.claim`."""
        with self._named():
            claimed = cast(bytes | None, self._client.hget(self._meta, "batch"))
            if claimed is None:
                num, last = 0, b""
                for entries in self._entries("+", limit):
                    num, last = num + len(entries), entries[-1][0]
                    if num >= limit:
                        break
                if not num:
                    return None
                batch = f"{new_batch_id()} {last.decode().removesuffix('-0')}"
                self._client.hsetnx(self._meta, "batch", batch)  # another one's claim stays
                claimed = cast(bytes, self._client.hget(self._meta, "batch"))
            batch_id, _, end = claimed.decode().partition(" ")
            found = [event for entries in self._entries(f"{end}-0") for _, event in entries]
        return Batch(batch_id, found)

    def settle(self, batch_id: str) -> None:
        """See `UserState.settle`."""
        with self._named():
            self._settle(keys=[self._meta, self._outbox], args=[batch_id])

    def num_waiting(self) -> int:
        """See `UserState.num_waiting`."""
        with self._named():
            return int(self._client.xlen(self._outbox))

    def sweep(self) -> None:
        """See `UserState.sweep`."""
        if (oldest := oldest_us(self._max_age_us)) is None:
            return
        with self._named():
            users = self._client.scan_iter(self._user("*"), count=SWEEP_USERS)
            while keys := list(islice(users, SWEEP_USERS)):
                self._sweep(keys=keys, args=[pack_time(oldest)])

    def seed(
        self,
        table: pa.Table,
        item_ids: Strings,
        max_events_per_user: int,
        *,
        source: str,
        erased: Mapping[str, Tombstone] | None = None,
    ) -> bool:
        """See `UserState.seed`; but what is there already when a seed breaks off stays.

        A server that added all at once would answer nobody meanwhile. So chunks are added, each at
        once, and the source is marked last. After a failure the source is not seeded, some of its
        users have their events, and the next `seed` adds what is missing. Of several replicas at
        once each adds what it does not find, and one returns True.
        """
        if self.is_seeded(source):
            return False
        seeds = seed_events(table, item_ids, max_events_per_user).select(*EVENT_COLUMNS, "nth")
        # The store's own tombstones are the script's business.
        seeds = lasting(seeds, erased or {}, oldest_us(self._max_age_us))
        for chunk in seeds.iter_slices(CHUNK):
            self._seed_chunk(chunk)
        with self._named():
            return bool(self._client.sadd(self._sources, source))

    def is_seeded(self, source: str) -> bool:
        """See `UserState.is_seeded`."""
        with self._named():
            return bool(self._client.sismember(self._sources, source))

    def count_users(self) -> int:
        """See `UserState.count_users`."""
        with self._named():
            return sum(1 for _ in self._client.scan_iter(self._user("*"), count=1000))

    def ping(self) -> None:
        """See `UserState.ping`."""
        with self._named():
            self._client.hget(self._meta, "format")

    def close(self) -> None:
        """See `UserState.close`."""
        self._is_closed = True
        self._client.close()

    def _seed_chunk(self, seeds: pl.DataFrame) -> None:
        """Add rows of `EVENT_COLUMNS` and `nth`; those of a user lie together."""
        users: list[str] = []
        arguments = self._options()
        for user, rows in groupby(seeds.iter_rows(), key=itemgetter(0)):
            fields = [seeded_field(nth, pack(us, code, item)) for _, _, item, code, us, nth in rows]
            users.append(user)
            arguments += (len(fields), *fields)
        with self._named():
            self._seed(keys=self._keys(users), args=arguments)

    def _keys(self, users: Iterable[str]) -> list[str]:
        return [self._meta, self._outbox, self._erased, self._ahead, *map(self._user, users)]

    def _options(self) -> list[int | bytes]:
        """The first arguments of `scripts.APPEND` and `SEED`."""
        oldest = oldest_us(self._max_age_us)
        prefix = len(self._user("").encode())
        if self._max_age_us is None or oldest is None:
            return [self._cap, b"", 0, prefix]
        return [self._cap, pack_time(oldest), self._max_age_us // 1_000_000 + _SLACK_S, prefix]

    def _entries(self, last: str, limit: int = CHUNK) -> Iterator[list[tuple[bytes, StateEvent]]]:
        """The outbox up to an entry, some at a time: (id of the entry, event) of each."""
        first = "-"
        while True:
            rows = self._client.xrange(self._outbox, first, last, count=min(limit, CHUNK))
            if not rows:
                return
            entries = cast(list[tuple[bytes, dict[bytes, bytes]]], rows)
            yield [(entry, waiting_event(values)) for entry, values in entries]
            first = f"({entries[-1][0].decode()}"

    def _user(self, user_id: str) -> str:
        return f"{self._prefix}:u:{user_id}"

    @contextmanager
    def _named(self) -> Iterator[None]:
        """See `Connection.named`; a closed store is named too."""
        if self._is_closed:
            raise DataError("the store is closed", where=self._name, fix="open it again")
        with self._server.named():
            yield
