"""The items routes: add, change, describe and remove items while a bundle is served."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from recsys.data.catalogue import item_text
from recsys.schema import TEXT_FIELDS, Col
from recsys.state import ItemStore
from recsys.state.items import NOTHING, ItemChange, ItemEdit, merged
from serve.core.serialization import to_json
from serve.core.worker_pool import WorkerPool
from serve.models.added_items import texts_of
from serve.models.arms import Arms, ServedBundle
from serve.models.live_arms import LiveArms
from serve.models.text_vectors import TextVectors
from serve.schemas.problems import NotFound, Refused
from serve.schemas.requests import ItemUpdate

#: Path of a field in a request.
Loc = tuple[str | int, ...]


class CatalogueUpdates:
    """Answers the items routes.

    Args:
        live: what is served; takes up each change.
        store: of the added items.
        texts: encodes new items.
        workers: threads that make answers.
        writer: the thread that writes.
        max_added_items: that the bundle does not hold.
    """

    def __init__(
        self,
        live: LiveArms,
        store: ItemStore,
        texts: TextVectors,
        workers: WorkerPool,
        writer: WorkerPool,
        max_added_items: int,
    ) -> None:
        self._live, self._store, self._texts = live, store, texts
        self._workers, self._writer = workers, writer
        self._max_added_items = max_added_items

    async def update(self, updates: Sequence[ItemUpdate], *, single: bool) -> bytes:
        """The JSON answer to `POST /items`.

        Args:
            updates: of the request; all are stored or none.
            single: the request is one item, not a list (for the names in refusals).

        Raises:
            Refused: an item stands there twice, a new one has no text, or there are too many.
            DataError: the store cannot be written.
        """
        stored = None
        while stored is None:  # another replica has changed one of them meanwhile
            await self._live.refresh()
            edits, known, version = await self._edits(updates, single=single)
            stored = await self._writer.run(partial(self._store.put, edits, version))
        await self._live.refresh()
        return to_json({"received": len(updates), "stored": stored, "known_items": known})

    async def describe(self, item_id: str) -> bytes:
        """The JSON answer to `GET /items/...`.

        Raises:
            NotFound: neither the bundle holds it nor was it added.
        """
        await self._live.refresh()
        served = self._live.now.first.served
        in_bundle, said = served.bundle.in_bundle(item_id), served.added.items.get(item_id)
        if not in_bundle and said is None:
            raise NotFound("no such item: the bundle does not hold it, and none was added")

        def answer() -> bytes:
            own = served.bundle.fields_in_bundle(item_id) if in_bundle else {}
            updated = json.loads(said.fields or "{}") if said else {}
            known = {name: (own | updated).get(name) for name in (*TEXT_FIELDS, Col.price)}
            available = (own | updated).get(Col.available)
            return to_json(
                {
                    "item_id": item_id, **known, "available": available is not False,
                    "in_bundle": in_bundle, "updated": sorted(updated),
                }
            )  # fmt: skip

        return await self._workers.run(answer)

    async def remove(self, item_id: str) -> bytes:
        """The JSON answer to `DELETE /items/...`.

        Raises:
            DataError: the store cannot be written.
        """
        removed = await self._writer.run(partial(self._store.remove, item_id))
        await self._live.refresh()
        return to_json({"removed": removed})

    async def _edits(
        self, updates: Sequence[ItemUpdate], *, single: bool
    ) -> tuple[list[ItemEdit], list[str], str]:
        """What is to be stored of items, the ids that the catalogue holds, and the model's version.

        Raises:
            Refused: see `update`.
        """
        arms = self._live.now
        served = arms.first.served
        added = served.added.items
        ids = [update.item_id for update in updates]
        before = {name: added[name].fields if name in added else None for name in ids}
        after = {each.item_id: merged(before[each.item_id], each.given()) for each in updates}
        locs = [()] if single else [("items", place) for place in range(len(ids))]
        new = _new_items(arms, dict(zip(locs, ids, strict=True)), after)
        self._check_room(served, new.values())
        vectors = await self._vectors(served, new, after)
        edits = [
            ItemEdit(name, before[name], after[name], vectors.get(name))
            for name in ids
            if before[name] is not None or after[name] != NOTHING
        ]
        known = [name for name in ids if name not in new.values()]
        return edits, known, served.bundle.version

    def _check_room(self, served: ServedBundle, new: Iterable[str]) -> None:
        most = self._max_added_items
        others = {name for name in served.added.items if not served.bundle.in_bundle(name)}
        if len(others | set(new)) > most:
            msg = f"at most {most} added items: take some away, or serve a bundle that holds them"
            raise Refused((), msg, kind="too_many")

    async def _vectors(
        self, served: ServedBundle, new: Mapping[Loc, str], after: Mapping[str, str]
    ) -> dict[str, NDArray[np.float32] | None]:
        """Text vectors of new items by id: those that are known, and of changed texts made anew.

        Args:
            served: the bundle whose language model reads them.
            new: ids, by place in the request.
            after: fields of each item as they are to be, JSON.
        """
        added = served.added.items
        vectors = {name: added[name].vector for name in new.values() if name in added}
        fields = {loc: json.loads(after[name]) for loc, name in new.items()}
        changed = {
            loc: fields[loc]
            for loc, name in new.items()
            if name not in added or texts_of(fields[loc]) != _stored_texts(added[name])
        }
        for loc, vector in zip(changed, await self._texts.of(served, changed), strict=True):
            vectors[new[loc]] = vector
        return vectors


def _new_items(arms: Arms, ids: Mapping[Loc, str], after: Mapping[str, str]) -> dict[Loc, str]:
    """The items of a request that no arm's bundle holds.

    Args:
        arms: what is served.
        ids: by place in the request.
        after: fields of each item as they are to be, JSON.

    Raises:
        Refused: an item stands there twice, or a new one has no text.
    """
    text_fields = arms.first.served.bundle.recipe.data.text_fields
    earlier: set[str] = set()
    new: dict[Loc, str] = {}
    for loc, name in ids.items():
        if name in earlier:
            raise Refused((*loc, "item_id"), "given twice", kind="repeated")
        earlier.add(name)
        if any(each.bundle.in_bundle(name) for each in arms.bundles):
            continue
        if not item_text(json.loads(after[name]), text_fields):
            msg = f"the item is new and has no text: fill one of {', '.join(text_fields)}"
            raise Refused(loc, msg, kind="text")
        new[loc] = name
    return new


def _stored_texts(item: ItemChange) -> dict[str, str | None]:
    """The stored fields of an item that make its text."""
    return texts_of(json.loads(item.fields or "{}"))
