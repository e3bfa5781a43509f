"""The items that were added while a bundle is served, as one replica sees them.

The store holds them under a version that rises with each change. A replica keeps what it has read,
asks for the version now and then, reads what was changed since, and makes a new `Recommender` of
the bundle's and the added items together.

Legend: M items, H width of the language model.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.recommender import ADDED, NewItems, Recommender
from recsys.schema import TEXT_FIELDS
from recsys.state import STATE_FILE, open_items
from recsys.state.items import ItemChange
from serve.api import MAX_NEW_ITEMS, AddedItem
from serve.settings import Settings

#: Encodes new items with the language model of a bundle: (folder, version, fields of each) ->
#: [M, H], rows of NaN where the fields make no text.
Encode = Callable[[Path, str, list[dict[str, str | None]]], Awaitable[NDArray[np.float32]]]


@dataclass(frozen=True)
class Seen:
    """What a replica has read of the store for one model.

    Attributes:
        version: of the store; nothing before it is missing.
        items: by id, each with its vector by the model.
    """

    version: int = 0
    items: Mapping[str, ItemChange] = field(default_factory=dict)


class AddedItems:
    """The store of added items, and what is made of it.

    Args:
        settings: name the store.
        encode: see `Encode`.

    Raises:
        DataError: the store cannot be opened.
    """

    def __init__(self, settings: Settings, encode: Encode) -> None:
        self._encode = encode
        self._store = open_items(settings.serve.state, settings.root / STATE_FILE)

    def put(self, items: Sequence[AddedItem], model: str, vectors: NDArray[np.float32]) -> int:
        """Store items with their vectors [M, H] by a model; returns how many were changed.

        Raises:
            DataError: the store cannot be written.
        """
        rows = [
            (item.item_id, json.dumps(item.model_dump(exclude={"item_id"}), ensure_ascii=False))
            for item in items
        ]
        return self._store.put(rows, model, list(vectors))

    def remove(self, item_id: str) -> bool:
        """Take an item away; whether there was one.

        Raises:
            DataError: the store cannot be written.
        """
        return self._store.remove(item_id)

    def version(self) -> int:
        """The store's version.

        Raises:
            DataError: the store cannot be read.
        """
        return self._store.version()

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()

    async def read(self, folder: Path, model: str, seen: Seen, keep: Sequence[str]) -> Seen:
        """What there is now: the changes are read, and texts encoded that the model has not read.

        Args:
            folder: of the bundle.
            model: its version.
            seen: what was read for it before.
            keep: models whose vectors are still needed.

        Raises:
            DataError: the store cannot be read or written.
        """
        version, changes = await asyncio.to_thread(self._store.changes, seen.version, model)
        without = [item for item in changes if item.fields is not None and item.vector is None]
        made = {}
        for low in range(0, len(without), MAX_NEW_ITEMS):
            part = without[low : low + MAX_NEW_ITEMS]
            texts = [texts_of(json.loads(item.fields or "")) for item in part]
            vectors = await self._encode(folder, model, texts)
            made |= {
                item.item_id: replace(item, vector=vector)
                for item, vector in zip(part, vectors, strict=True)
            }
        if made:
            await asyncio.to_thread(self._store.add_vectors, [*made.values()], model, keep)
        items = dict(seen.items)
        for item in changes:
            items.pop(item.item_id, None)
            if item.fields is not None:
                items[item.item_id] = made.get(item.item_id, item)
        return Seen(version, items)


def texts_of(fields: Mapping[str, object]) -> dict[str, str | None]:
    """The fields of an item that make its text."""
    return {name: fields.get(name) for name in TEXT_FIELDS}  # type: ignore[misc]


def extended(model: Recommender, seen: Seen) -> Recommender:
    """A bundle's model over its own and the added items.

    Left out are items that the bundle's catalogue holds by now, and those without a text that its
    language model reads.
    """
    items = [
        item
        for _, item in sorted(seen.items.items())
        if not model.in_bundle(item.item_id)
        and item.vector is not None
        and np.isfinite(item.vector).all()
    ]
    if not items:
        return model
    rows = [{"item_id": item.item_id, **json.loads(item.fields or "")} for item in items]
    fields = pl.DataFrame([{name: row[name] for name in ADDED} for row in rows], schema=ADDED)
    return model.with_items(NewItems(np.stack([item.vector for item in items]), fields))  # type: ignore[misc]
