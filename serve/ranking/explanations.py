"""Explanations as answers give them: ids, titles, and one sentence."""

from __future__ import annotations

import datetime as dt
from typing import Any

from recsys.outcome_heads.served import Expected
from recsys.ranking.explain import Explanation
from recsys.recommender import Recommender
from recsys.schema import EVENT_TYPES
from serve.ranking.verbs import Verbs
from serve.schemas.fields import EPOCH


def describe_explanation(
    model: Recommender, row: int, why: Explanation, verbs: Verbs
) -> dict[str, Any]:
    """The fields of `serve.schemas.responses.Explanation`.

    Args:
        model: names the items.
        row: catalogue row of the explained item; -1 if the catalogue does not hold it.
        why: its explanation.
        verbs: what the user did, by event type.
    """
    reasons = [
        {
            "item_id": model.item_id(reason.item_row),
            "title": model.title(reason.item_row),
            "event_type": EVENT_TYPES[reason.event_code],
            "count": reason.count,
            "last": f"{_moment(reason.last_us):%Y-%m-%dT%H:%M:%SZ}",
            "gain": reason.gain,
        }
        for reason in why.reasons
    ]
    return {"sentence": _sentence(model, row, why, verbs), "reasons": reasons, "parts": why.parts}


def add_expected(items: list[dict[str, Any]], expected: Expected | None) -> None:
    """Add what is expected of each item to its explanation; None: there are no outcome heads."""
    if expected is not None:
        for name, column in vars(expected).items():
            if column is not None:
                for item, value in zip(items, column.tolist(), strict=True):
                    item["explanation"].setdefault("expected", {})[name] = value


def _sentence(model: Recommender, row: int, why: Explanation, verbs: Verbs) -> str:
    """The strongest reason in words."""
    if not why.reasons:
        return "Popular with others."
    first = why.reasons[0]
    times = "once" if first.count == 1 else f"{first.count} times"
    ((item_id, title),) = model.names([first.item_row])
    what = "it" if first.item_row == row else title or f"item {item_id}"
    return (
        f"You {verbs[EVENT_TYPES[first.event_code]].replace('{}', what)} {times}, last on "
        f"{_moment(first.last_us):%Y-%m-%d}."
    )


def _moment(us: int) -> dt.datetime:
    return EPOCH + dt.timedelta(microseconds=us)
