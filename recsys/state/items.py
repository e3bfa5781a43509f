"""What is said of items while a catalogue is served, whatever it is kept in.

Of an item that the catalogue holds, the fields that differ; of another, all that there are.

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
    """What the store holds of one item.

    Attributes:
        item_id: the shop's id.
        version: the store's version as of the item's last change.
        fields: what is said of it, as JSON text; None: that was taken back.
        vector: [H] of this text by the language model that was asked for; None: not known.
    """

    item_id: str
    version: int
    fields: str | None
    vector: Float32s | None


@dataclass(frozen=True, eq=False)
class ItemEdit:
    """What is to be said of an item from now on.

    Attributes:
        item_id: the shop's id.
        before: what is said of it now, by what the sender knows; None: nothing.
        after: what is to be said of it, as JSON text.
        vector: [H] of that by the sender's language model; None: it was not asked for.
    """

    item_id: str
    before: str | None
    after: str
    vector: Float32s | None


#: What `merged` makes of nothing.
NOTHING = "{}"


def merged(fields: str | None, given: Mapping[str, Any]) -> str:
    """What is said of an item, as JSON text, once more is given; the same text for the same facts.

    Args:
        fields: what was said before; None: nothing.
        given: fields by name; None takes one back, what is not named stays.
    """
    held = json.loads(fields) if fields else {}
    known = {name: value for name, value in {**held, **given}.items() if value is not None}
    return json.dumps(known, ensure_ascii=False, sort_keys=True)


class ItemStore(Protocol):
    """Items under a version that rises with every change.

    Every method may be called from several threads at once. Where the store cannot be read or
    written, each raises `DataError`.
    """

    def put(self, edits: Sequence[ItemEdit], model: str) -> int | None:
        """Say more of items, all or none; durable when this returns, as far as the store is.

        Args:
            edits: of different items.
            model: the bundle whose language model made the vectors.

        Returns:
            Of how many items something else is said now. None: somebody else has said something of
            one of them meanwhile, and nothing was stored.
        """

    def remove(self, item_id: str) -> bool:
        """Take back what was said of an item; whether anything was."""

    def version(self) -> int:
        """Of the last change; 0 before the first."""

    def changes(self, since: int, model: str) -> tuple[int, list[ItemChange]]:
        """The items that were changed after a version, with their vectors by a model.

        Returns:
            A version up to which nothing is missing, to ask from the next time, and the items.
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
        """Let go of the store; it cannot be used after."""


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
