"""The item store on a Redis or Valkey server, shared by replicas on several machines.

Keys, below the prefix: `items` is a hash of `{version}:{JSON}` by item id, where an item that was
taken away has no JSON; `items:order` sorts the ids by that version, and `items:version` is the
latest. `items:v:{model}` is a hash of `{version}:{float32s}` by item id, and `items:models` names
the models that have one. Durability is the server's, see `recsys.state.redis.users`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from recsys.state.items import ItemChange, ItemEdit
from recsys.state.redis.connection import Connection

#: Items put, where nobody has said anything else meanwhile: -1 tells that somebody has, and nothing
#: was done. Arguments: four an item, its id, the JSON before and after, and the vector. A script
#: runs alone, so a version is whole when it is seen.
_PUT = r"""
local function held(id)
  return string.match(redis.call('HGET', KEYS[1], id) or '0:', '^(%d+):(.*)$')
end
for i = 1, #ARGV, 4 do
  local _, fields = held(ARGV[i])
  if fields ~= ARGV[i + 1] then return -1 end
end
local next_version, num_changed = tonumber(redis.call('GET', KEYS[3]) or '0') + 1, 0
for i = 1, #ARGV, 4 do
  local id, before, after, vector = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local version = held(id)
  if before ~= after then
    version, num_changed = string.format('%d', next_version), num_changed + 1
    redis.call('HSET', KEYS[1], id, version .. ':' .. after)
    redis.call('ZADD', KEYS[2], version, id)
  end
  if vector ~= '' then redis.call('HSET', KEYS[4], id, version .. ':' .. vector) end
end
if num_changed > 0 then redis.call('SET', KEYS[3], next_version) end
return num_changed
"""


class RedisItems:
    """An `ItemStore` on a server.

    Args:
        url: as `RedisState` takes it.
        prefix: begin of all keys.
    """

    def __init__(self, url: str, prefix: str) -> None:
        self._server = Connection(url)
        self._client = self._server.client
        self._items = f"{prefix}:items"
        self._order, self._latest = f"{self._items}:order", f"{self._items}:version"
        self._models = f"{self._items}:models"
        self._put = self._client.register_script(_PUT)

    def put(self, edits: Sequence[ItemEdit], model: str) -> int | None:
        """See `ItemStore.put`; as durable as the server's `appendfsync` makes it."""
        arguments: list[str | bytes] = []
        for each in edits:
            vector = b"" if each.vector is None else each.vector.tobytes()
            arguments += (each.item_id, each.before or "", each.after, vector)
        with self._server.named():
            self._client.sadd(self._models, model)
            num_changed = int(self._put(keys=self._keys(model), args=arguments))
        return None if num_changed < 0 else num_changed

    def remove(self, item_id: str) -> bool:
        """See `ItemStore.remove`."""
        while True:
            (before,) = self._held([item_id])
            if not before:
                return False
            with self._server.named():
                if self._put(keys=self._keys(""), args=[item_id, before, "", ""]) == 1:
                    return True

    def _held(self, item_ids: Sequence[str]) -> list[str]:
        """What is said of each item now; empty: nothing."""
        with self._server.named():
            found = cast(
                list[bytes | None], self._client.hmget(self._items, cast(Any, list(item_ids)))
            )
        return [(each or b":").partition(b":")[2].decode() for each in found]

    def version(self) -> int:
        """See `ItemStore.version`."""
        with self._server.named():
            return int(cast(bytes, self._client.get(self._latest)) or 0)

    def changes(self, since: int, model: str) -> tuple[int, list[ItemChange]]:
        """See `ItemStore.changes`."""
        version = self.version()
        with self._server.named():
            ids = cast(list[bytes], self._client.zrangebyscore(self._order, f"({since}", "+inf"))
            if not ids:
                return version, []
            held = cast(list[bytes], self._client.hmget(self._items, cast(Any, ids)))
            vectors = cast(
                list[bytes | None], self._client.hmget(self._vectors(model), cast(Any, ids))
            )
        found = []
        for item_id, item, blob in zip(ids, held, vectors, strict=True):
            changed_at, _, fields = item.partition(b":")
            made_at, _, packed = (blob or b"").partition(b":")
            fits = bool(fields) and made_at == changed_at
            found.append(
                ItemChange(
                    item_id.decode(),
                    int(changed_at),
                    fields.decode() or None,
                    np.frombuffer(packed, np.float32) if fits else None,
                )
            )
        return version, found

    def add_vectors(self, items: Sequence[ItemChange], model: str, keep: Sequence[str]) -> None:
        """See `ItemStore.add_vectors`."""
        fields = {}
        for item in items:
            assert item.vector is not None
            fields[item.item_id] = b"%d:" % item.version + item.vector.tobytes()
        with self._server.named():
            self._client.sadd(self._models, model)
            if fields:
                self._client.hset(self._vectors(model), mapping=cast(Any, fields))
            for name in cast(set[bytes], self._client.smembers(self._models)):
                if name.decode() not in {model, *keep}:
                    self._client.delete(self._vectors(name.decode()))
                    self._client.srem(self._models, name)

    def close(self) -> None:
        """See `ItemStore.close`."""
        self._client.close()

    def _keys(self, model: str) -> list[str]:
        return [self._items, self._order, self._latest, self._vectors(model)]

    def _vectors(self, model: str) -> str:
        return f"{self._items}:v:{model}"
