"""From a query and a request to the answer: plain functions, run in a thread."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recsys.config import Serve
from recsys.explain import Explanation
from recsys.exploration import Exploration
from recsys.recommender import NewItems, Recommender
from recsys.schema import EVENT_TYPES, Col
from serve.api import EPOCH, NewItem, RankRequest, RecommendRequest
from serve.problems import Refused
from serve.queries import Query
from serve.requests import current, current_id
from serve.router import ONLY

#: What an asker did, by event type.
VERBS = {
    "impression": "were shown {}",
    "view": "viewed {}",
    "click": "clicked {}",
    "add_to_cart": "put {} into the cart",
    "purchase": "bought {}",
}


@dataclass(frozen=True)
class Answer:
    """A list, and what it shows.

    Attributes:
        fields: of `serve.answers`, but for the request's id.
        request_id: of the request.
        items: in the order to show: `item_id`, `score` and more of each.
        model_version: what ranked them.
        arm: the name of the arm that did.
        propensities: of each item; None: nothing was drawn.
    """

    fields: dict[str, Any]
    request_id: str
    items: list[dict[str, Any]]
    model_version: str
    arm: str
    propensities: list[float] | None


def recommend(
    model: Recommender,
    query: Query,
    request: RecommendRequest,
    defaults: Serve,
    arm: str = ONLY.name,
    exploration: Exploration | None = None,
) -> Answer:
    """The best items that the request allows; where the arm explores, they are drawn.

    Args:
        model: scores.
        query: the asker.
        request: what is asked for.
        defaults: stand in for what the request leaves open; neither asks for diversity or a cap
            where something is drawn.
        arm: whose model it is.
        exploration: draws; None: the best are shown.
    """

    def asked_for(name: str, default: Any) -> Any:
        given = getattr(request, name)
        return default if given is None else given

    excluded = model.rows_of(request.exclude)
    filters = request.filters.model_dump() if request.filters else {}
    k, allowed = asked_for("k", defaults.default_k), model.allowed(**filters)
    exclude_owned = asked_for("exclude_owned", defaults.exclude_owned)
    propensities = None
    if exploration is None:
        rows, scores = model.recommend(
            query.history,
            k,
            exclude=excluded,
            allowed=allowed,
            diversity=asked_for("diversity", defaults.diversity),
            max_per_category=asked_for("max_per_category", defaults.max_per_category),
            exclude_owned=exclude_owned,
        )
    else:
        rows, scores, chances = model.draw(
            query.history, k, exploration,
            exclude=excluded, allowed=allowed, exclude_owned=exclude_owned,
        )  # fmt: skip
        propensities = chances.tolist()
    trace = current()
    trace.lap("score")
    unknown = [item for item, row in zip(request.exclude, excluded, strict=True) if row < 0]
    items: list[dict[str, Any]] = [
        {"item_id": model.item_id(row), "title": model.title(row), "score": score}
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
    ]
    if request.explain:
        found = model.explain(query.history, rows.astype(np.int32))
        for item, row, why in zip(items, rows.tolist(), found, strict=True):
            item["explanation"] = in_words(model, row, why)
        trace.lap("explain")
    return _answer(model, arm, query, items, unknown, propensities)


def rank(
    model: Recommender,
    query: Query,
    request: RankRequest,
    text_vectors: NDArray[np.float32],
    arm: str = ONLY.name,
    exploration: Exploration | None = None,
) -> Answer:
    """The request's candidates, best first, ties by position; drawn, where the arm explores.

    Args:
        model: scores.
        query: the asker.
        request: M of its candidates are new items.
        text_vectors: [M, H] language-model vectors of the new items, in their order.
        arm: whose model it is.
        exploration: draws; None: they are sorted.

    Raises:
        Refused: a candidate's id is not in the catalogue.
    """
    new = new_items(request)
    known = np.array([n for n in range(len(request.candidates)) if n not in new], dtype=np.int64)
    rows = model.rows_of([str(request.candidates[place]) for place in known.tolist()])
    if (rows < 0).any():
        raise Refused(
            ("candidates", int(known[np.argmax(rows < 0)])),
            "not in the catalogue: correct the id, or give the item's text",
            kind="unknown_item",
        )
    unknown = NewItems(text_vectors, fields_of(new.values())) if new else None
    scores = model.rank(query.history, rows, unknown)
    trace = current()
    trace.lap("score")
    place_of = np.concatenate([known, np.array(list(new), dtype=np.int64)])
    propensities = None
    if exploration is None:
        best = np.lexsort((place_of, -scores))[: request.k]
    else:
        drawn = exploration.draw(scores, len(scores) if request.k is None else request.k)
        best, propensities = drawn.places, drawn.propensities.tolist()
    row_of = dict(zip(known.tolist(), rows.tolist(), strict=True))
    items = []
    for place, score in zip(place_of[best].tolist(), scores[best].tolist(), strict=True):
        if place in new:
            name = {"item_id": new[place].item_id, "title": new[place].title}
        else:
            row = row_of[place]
            name = {"item_id": model.item_id(row), "title": model.title(row)}
        items.append({**name, "score": score, "candidate": place})
    if request.explain:
        # Of the answered items alone; the new ones come last, as in `Recommender.explain`.
        number_of = {place: number for number, place in enumerate(new)}
        old = [item for item in items if item["candidate"] not in new]
        fresh = [item for item in items if item["candidate"] in new]
        numbers = [number_of[item["candidate"]] for item in fresh]
        explained = model.explain(
            query.history,
            np.array([row_of[item["candidate"]] for item in old], dtype=np.int32),
            unknown.take(numbers) if unknown is not None else None,
        )
        for item, why in zip([*old, *fresh], explained, strict=True):
            item["explanation"] = in_words(model, row_of.get(item["candidate"], -1), why)
        trace.lap("explain")
    return _answer(model, arm, query, items, [], propensities)


def in_words(model: Recommender, row: int, why: Explanation) -> dict[str, Any]:
    """An explanation as the answer tells it, with ids, titles and a sentence.

    Args:
        model: names the items.
        row: the explained item; -1 if the catalogue does not hold it.
        why: its explanation.
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
    sentence = "Popular with others."
    if why.reasons:
        first = why.reasons[0]
        times = "once" if first.count == 1 else f"{first.count} times"
        what = "it" if first.item_row == row else model.title(first.item_row)
        sentence = (
            f"You {VERBS[EVENT_TYPES[first.event_code]].format(what)} {times}, last on "
            f"{_moment(first.last_us):%Y-%m-%d}."
        )
    return {"sentence": sentence, "reasons": reasons, "parts": why.parts}


def _moment(us: int) -> dt.datetime:
    return EPOCH + dt.timedelta(microseconds=us)


def new_items(request: RankRequest) -> dict[int, NewItem]:
    """The candidates that come as text, by position."""
    return {i: item for i, item in enumerate(request.candidates) if isinstance(item, NewItem)}


def fields_of(items: Iterable[NewItem]) -> pl.DataFrame:
    """Brand, category and price of new items, as the catalogue has them."""
    names = {Col.brand: pl.String, Col.category: pl.String, Col.price: pl.Float64}
    return pl.DataFrame([item.model_dump(include=set(names)) for item in items], schema=names)


def to_json(answer: dict[str, Any]) -> bytes:
    """The answer, with the id of its request."""
    whole = {**answer, "request_id": current_id()}
    return json.dumps(whole, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _answer(
    model: Recommender,
    arm: str,
    query: Query,
    items: list[dict[str, Any]],
    unknown: list[str],
    propensities: list[float] | None,
) -> Answer:
    trace, version = current(), model.version
    fields = {
        "items": items,
        "model_version": version,
        "arm": arm,
        "fallback": trace.failed_arm is not None,
        "basis": query.basis,
        "degraded": query.degraded,
        "unknown_items": list(dict.fromkeys([*query.unknown_items, *unknown])),
    }
    trace.arm, trace.model_version = arm, version
    trace.basis, trace.num_items = query.basis, len(items)
    return Answer(fields, trace.id, items, version, arm, propensities)
