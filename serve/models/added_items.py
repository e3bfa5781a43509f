"""What `POST /items` said of items, as one replica sees it.

The store holds it under a version that rises with each change. A replica keeps what it has read,
asks for the version now and then, reads what was changed since, and makes a new `Recommender`: of
the bundle's items with the fields that differ now, and of those that the bundle does not hold.

Legend: M items, H width of the language model.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.recommender import Recommender
from recsys.recommender.new_items import NewItems
from recsys.recommender.served_items import ADDED
from recsys.schema import TEXT_FIELDS
from recsys.state import ItemStore
from recsys.state.items import ItemChange
from recsys.storage.location import Place
from serve.schemas.requests import MAX_NEW_ITEMS

#: Encodes new items with the language model of a bundle: (place, version, fields of each) ->
#: [M, H], rows of NaN where the fields make no text.
Encode = Callable[[Place, str, list[dict[str, str | None]]], Awaitable[NDArray[np.float32]]]


@dataclass(frozen=True)
class ItemsSnapshot:
    """What a replica has read of the store for one model.

    Attributes:
        version: of the store; nothing before it is missing.
        items: by id, those that the model's bundle does not hold with a vector by it.
    """

    version: int = 0
    items: Mapping[str, ItemChange] = field(default_factory=dict)


async def read_changes(
    store: ItemStore,
    encode: Encode,
    place: Place,
    model: Recommender,
    before: ItemsSnapshot,
    keep: Sequence[str],
) -> ItemsSnapshot:
    """Read what was changed since a snapshot; encode the texts that the model has not read.

    Args:
        store: of the items.
        encode: see `Encode`.
        place: of the bundle.
        model: over the bundle's items.
        before: what was read for it before.
        keep: versions of the bundles whose vectors are still needed.

    Raises:
        DataError: the store cannot be read or written.
        Unavailable: a text has to be encoded, and cannot be.
    """
    version, changes = await asyncio.to_thread(store.changes, before.version, model.version)
    without = [
        item
        for item in changes
        if item.fields and item.vector is None and not model.in_bundle(item.item_id)
    ]
    made: dict[str, ItemChange] = {}
    for low in range(0, len(without), MAX_NEW_ITEMS):
        part = without[low : low + MAX_NEW_ITEMS]
        texts = [texts_of(json.loads(item.fields or "")) for item in part]
        vectors = await encode(place, model.version, texts)
        made |= {
            item.item_id: replace(item, vector=vector)
            for item, vector in zip(part, vectors, strict=True)
        }
    if made:
        await asyncio.to_thread(store.add_vectors, [*made.values()], model.version, keep)
    items = dict(before.items)
    for item in changes:
        items.pop(item.item_id, None)
        if item.fields is not None:
            items[item.item_id] = made.get(item.item_id, item)
    return ItemsSnapshot(version, items)


def texts_of(fields: Mapping[str, object]) -> dict[str, str | None]:
    """The fields of an item that make its text."""
    return {name: fields.get(name) for name in TEXT_FIELDS}  # type: ignore[misc]


def extended(model: Recommender, snapshot: ItemsSnapshot) -> Recommender:
    """A bundle's model with changed fields of its own items, and with the added items.

    Added items without a text that the language model reads are left out.
    """
    said = {item_id: json.loads(item.fields or "{}") for item_id, item in snapshot.items.items()}
    changed = model.with_changes(said)
    new = {
        item_id: item.vector
        for item_id, item in sorted(snapshot.items.items())
        if not model.in_bundle(item_id)
        and item.vector is not None
        and np.isfinite(item.vector).all()
    }
    if not new:
        return changed
    rows = [{**dict.fromkeys(ADDED), "item_id": item_id, **said[item_id]} for item_id in new]
    fields = pl.DataFrame([{name: row[name] for name in ADDED} for row in rows], schema=ADDED)
    return changed.with_items(NewItems(np.stack([*new.values()]), fields))
