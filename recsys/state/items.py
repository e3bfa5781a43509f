"""The item store: changed and added items while a catalogue is served.

Of an item in the bundle's catalogue it holds the changed fields; of an added item all fields.

Legend: N items, H width of the language model.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from recsys.arrays import Float32s


@dataclass(frozen=True, eq=False)
class ItemChange:
    """One item of the store.

    Attributes:
        item_id: the shop's id.
        version: the store's version as of the item's last change.
        fields: JSON text; None: removed.
        vector: [H] of its text by the requested language model; None: not stored.
    """

    item_id: str
    version: int
    fields: str | None
    vector: Float32s | None


@dataclass(frozen=True, eq=False)
class ItemEdit:
    """One update of an item, with the state it replaces (compare and swap).

    Attributes:
        item_id: the shop's id.
        before: the fields that the sender has read, as JSON text; None: none.
        after: the new fields, as JSON text.
        vector: [H] of the new text by the sender's language model; None: not computed.
    """

    item_id: str
    before: str | None
    after: str
    vector: Float32s | None


#: Fields of an item without any, as `merged` gives them.
NOTHING = "{}"


def merged(fields: str | None, given: Mapping[str, Any]) -> str:
    """Merge new fields into an item's, as canonical JSON text: equal fields give equal text.

    Args:
        fields: the present ones, as JSON text; None: none.
        given: fields by name; None removes a field, others stay.
    """
    held = json.loads(fields) if fields else {}
    known = {name: value for name, value in {**held, **given}.items() if value is not None}
    return json.dumps(known, ensure_ascii=False, sort_keys=True)


class ItemStore(Protocol):
    """Items under a version number that rises with every change.

    Every method may be called from several threads at once. Where the store cannot be read or
    written, each raises `DataError`.
    """

    def put(self, edits: Sequence[ItemEdit], model: str) -> int | None:
        """Update items, all or none; as durable as the store when this returns.

        Args:
            edits: of different items.
            model: the bundle whose language model made the vectors.

        Returns:
            How many items changed. None: another writer has changed one of them since it was read,
            and nothing was stored.
        """

    def remove(self, item_id: str) -> bool:
        """Remove an item; returns whether it was there."""

    def version(self) -> int:
        """Version of the last change; 0 before the first."""

    def changes(self, since: int, model: str) -> tuple[int, list[ItemChange]]:
        """The items that were changed after a version, with their vectors by a model.

        Returns:
            The version up to which these changes are complete, and the items.
        """

    def add_vectors(self, items: Sequence[ItemChange], model: str, keep: Sequence[str]) -> None:
        """Store the vectors of some items by another model.

        Args:
            items: as `changes` gave them, with a vector each; of an item that was changed since,
                the vector is not used.
            model: made the vectors.
            keep: further models whose vectors are still needed; those of all others are dropped.
        """

    def close(self) -> None:
        """Close the store; it cannot be used after."""


class MemoryItems:
    """An `ItemStore` that ends with its process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version = 0
        self._items: dict[str, tuple[int, str | None]] = {}
        self._vectors: dict[str, dict[str, tuple[int, Float32s]]] = {}

    def put(self, edits: Sequence[ItemEdit], model: str) -> int | None:
        """See `ItemStore.put`."""
        with self._lock:
            if any(self._items.get(each.item_id, (0, None))[1] != each.before for each in edits):
                return None
            changed = [each for each in edits if each.after != each.before]
            for each in changed:
                self._items[each.item_id] = self._version + 1, each.after
            self._version += bool(changed)
            of_model = self._vectors.setdefault(model, {})
            for each in edits:
                if each.vector is not None:
                    of_model[each.item_id] = self._items[each.item_id][0], each.vector
            return len(changed)

    def remove(self, item_id: str) -> bool:
        """See `ItemStore.remove`."""
        with self._lock:
            if self._items.get(item_id, (0, None))[1] is None:
                return False
            self._version += 1
            self._items[item_id] = self._version, None
            return True

    def version(self) -> int:
        """See `ItemStore.version`."""
        return self._version

    def changes(self, since: int, model: str) -> tuple[int, list[ItemChange]]:
        """See `ItemStore.changes`."""
        with self._lock:
            of_model, changes = self._vectors.get(model, {}), []
            for item_id, (version, fields) in self._items.items():
                if version > since:
                    made_at, vector = of_model.get(item_id, (0, None))
                    fits = fields is not None and made_at == version
                    changes.append(ItemChange(item_id, version, fields, vector if fits else None))
            return self._version, changes

    def add_vectors(self, items: Sequence[ItemChange], model: str, keep: Sequence[str]) -> None:
        """See `ItemStore.add_vectors`."""
        with self._lock:
            of_model = self._vectors.setdefault(model, {})
            for item in items:
                assert item.vector is not None
                of_model[item.item_id] = item.version, item.vector
            for other in self._vectors.keys() - {model, *keep}:
                del self._vectors[other]

    def close(self) -> None:
        """See `ItemStore.close`."""
