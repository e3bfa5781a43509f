"""From a query and a request to the JSON of the answer: plain functions, run in a thread."""

from __future__ import annotations

import json
import uuid
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.recommender import Recommender
from serve.api import NewItem, RankRequest, RecommendRequest
from serve.problems import Refused
from serve.queries import Query


def recommend(model: Recommender, query: Query, request: RecommendRequest, k: int) -> bytes:
    """The best `k` items that the request allows."""
    excluded = model.rows_of(request.exclude)
    filters = request.filters.model_dump() if request.filters else {}
    rows, scores = model.recommend(
        query.history, k, exclude=excluded, allowed=model.allowed(**filters)
    )
    unknown = [item for item, row in zip(request.exclude, excluded, strict=True) if row < 0]
    items = [
        {"item_id": model.item_id(row), "title": model.title(row), "score": score}
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
    ]
    return _answer(model, query, items, unknown)


def rank(
    model: Recommender, query: Query, request: RankRequest, text_vectors: NDArray[np.float32]
) -> bytes:
    """The request's candidates, best first, ties by position.

    Args:
        model: scores.
        query: the asker.
        request: M of its candidates are new items.
        text_vectors: [M, H] language-model vectors of the new items, in their order.

    Raises:
        Refused: a candidate's id is not in the catalogue.
    """
    new = new_items(request)
    known = [place for place in range(len(request.candidates)) if place not in new]
    rows = model.rows_of([str(request.candidates[place]) for place in known])
    for place, row in zip(known, rows.tolist(), strict=True):
        if row < 0:
            raise Refused(
                ("candidates", place),
                "not in the catalogue: correct the id, or give the item's text",
                kind="unknown_item",
            )
    prices = [np.nan if item.price is None else item.price for item in new.values()]
    scores = model.rank(
        query.history,
        rows,
        text_vectors if new else None,
        np.array(prices, dtype=np.float32) if new else None,
    )
    place_of = np.array([*known, *new])
    best = np.lexsort((place_of, -scores))[: request.k]
    row_of = dict(zip(known, rows.tolist(), strict=True))
    items = []
    for place, score in zip(place_of[best].tolist(), scores[best].tolist(), strict=True):
        if place in new:
            name = {"item_id": new[place].item_id, "title": new[place].title}
        else:
            row = row_of[place]
            name = {"item_id": model.item_id(row), "title": model.title(row)}
        items.append({**name, "score": score, "candidate": place})
    return _answer(model, query, items, [])


def new_items(request: RankRequest) -> dict[int, NewItem]:
    """The candidates that come as text, by position."""
    return {i: item for i, item in enumerate(request.candidates) if isinstance(item, NewItem)}


def to_json(answer: dict[str, Any]) -> bytes:
    """The answer, under a new `request_id`."""
    whole = {**answer, "request_id": uuid.uuid4().hex}
    return json.dumps(whole, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _answer(
    model: Recommender, query: Query, items: list[dict[str, Any]], unknown: list[str]
) -> bytes:
    return to_json(
        {
            "items": items,
            "model_version": model.version,
            "basis": query.basis,
            "unknown_items": list(dict.fromkeys([*query.unknown_items, *unknown])),
        }
    )
