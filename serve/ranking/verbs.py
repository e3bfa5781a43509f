"""Verbs for explanations: what a user did with an item, in the shop's words."""

from __future__ import annotations

import re
from collections.abc import Mapping

from recsys.config import EventName, Retraction

#: Event type -> verb phrase, `{}` for the item's title.
Verbs = Mapping[str, str]

#: A verb of the past, regular: "played", "added_to_list"; not "feed".
_PAST = re.compile(r"[a-z_ -]*[^e{}]ed", re.IGNORECASE)
_USUAL = {
    "impression": "were shown {}",
    "view": "viewed {}",
    "click": "clicked {}",
    "add_to_cart": "put {} into the cart",
    "purchase": "bought {}",
}


def verbs_of(
    names: Mapping[str, EventName | Retraction | None], given: Mapping[EventName, str]
) -> Verbs:
    """The verbs of a shop.

    Args:
        names: the recipe's `data.event_types`. A name that is the only one for its type and a verb
            of the past is taken as it is: nobody bought what was played.
        given: the recipe's `serve.verbs`, which wins.
    """
    own: dict[str, str] = {}
    for event_type in _USUAL:
        mapped = [name for name, target in names.items() if target == event_type]
        if len(mapped) == 1 and mapped[0] != event_type and _PAST.fullmatch(mapped[0]):
            own[event_type] = f"{mapped[0].replace('_', ' ')} {{}}"
    return {**_USUAL, **own, **{str(name): text for name, text in given.items()}}
