"""What stands of a user's events, once those that take something back are read.

- `remove_from_cart` takes the item's latest `add_to_cart` back that still stands,
- `return` its latest `purchase`: the item is no longer owned,
- `dislike` hides the item from the user, `dislike_category` all items of its category, until the
  user puts that item into the cart or buys it.

Legend: E events, I items.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from recsys.arrays import Bools, Int32s, Int64s
from recsys.schema import EVENT_CODE, EVENT_TYPES

_TAKES_BACK = {
    EVENT_CODE["remove_from_cart"]: EVENT_CODE["add_to_cart"],
    EVENT_CODE["return"]: EVENT_CODE["purchase"],
}
_DISLIKE, _DISLIKE_CATEGORY = EVENT_CODE["dislike"], EVENT_CODE["dislike_category"]


def _no_rows() -> Int32s:
    return np.empty(0, dtype=np.int32)


@dataclass(frozen=True)
class Hidden:
    """What a user does not want to see, as rows of a catalogue.

    Attributes:
        items: rows of these items.
        of_categories: rows of items whose whole category it is.
    """

    items: Int32s = field(default_factory=_no_rows)
    of_categories: Int32s = field(default_factory=_no_rows)

    def __bool__(self) -> bool:
        return bool(len(self.items) or len(self.of_categories))

    def mask(self, categories: Int64s, no_category: int) -> Bools:
        """[I] the items that are hidden.

        Args:
            categories: [I] code of each item's category.
            no_category: the code of items without one.
        """
        named = np.setdiff1d(categories[self.of_categories], [no_category])
        hidden = np.isin(categories, named) if len(named) else np.zeros(len(categories), np.bool_)
        hidden[self.items] = hidden[self.of_categories] = True
        return hidden


def standing(
    item_rows: Int32s, event_codes: Sequence[int], timestamps: Sequence[int]
) -> tuple[Int64s, Hidden]:
    """Places of the events of interest that stand, ascending, and what is hidden.

    Args:
        item_rows: [E] of one user's events, oldest first; all in the catalogue.
        event_codes: [E] position in `schema.ALL_EVENT_TYPES`. Of one moment, retractions come last.
        timestamps: [E] rising.
    """
    if max(event_codes, default=0) < len(EVENT_TYPES):
        return np.arange(len(event_codes)), Hidden()
    stands = np.ones(len(event_codes), dtype=np.bool_)
    done: dict[tuple[int, int], list[int]] = defaultdict(list)
    disliked: dict[int, set[int]] = {_DISLIKE: set(), _DISLIKE_CATEGORY: set()}
    rows = item_rows.tolist()
    ordered = sorted(
        range(len(rows)), key=lambda at: (timestamps[at], event_codes[at] >= len(EVENT_TYPES))
    )
    for place in ordered:
        row, code = rows[place], event_codes[place]
        stands[place] = code < len(EVENT_TYPES)
        if code in disliked:
            disliked[code].add(row)
        elif code in _TAKES_BACK:
            if earlier := done[row, _TAKES_BACK[code]]:
                stands[earlier.pop()] = False
        elif code in _TAKES_BACK.values():
            done[row, code].append(place)
            for rows_of_kind in disliked.values():
                rows_of_kind.discard(row)
    return np.flatnonzero(stands), Hidden(
        *(np.array(sorted(each), dtype=np.int32) for each in disliked.values())
    )
