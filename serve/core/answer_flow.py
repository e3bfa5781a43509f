"""From a query and a request to the answer: plain functions, run in a thread."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import polars as pl
import pydantic_core
from numpy.typing import NDArray

from recsys.config import Serve
from recsys.ranking.encoded import EncodedHistory
from recsys.ranking.explain import Explanation
from recsys.ranking.exploration import Exploration
from recsys.recommender import Recommender
from recsys.recommender.new_items import NewItems
from recsys.schema import EVENT_TYPES, Col
from serve.core.arms import ONLY
from serve.core.queries import Query
from serve.core.verbs import Verbs
from serve.observability.trace import current, current_id
from serve.schemas.requests import EPOCH, NewItem, RankRequest, RecommendRequest


@dataclass(frozen=True)
class Answer:
    """A list, and what it shows.

    Attributes:
        fields: of `serve.schemas.responses`, but for the request's id.
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


@dataclass(frozen=True)
class Candidates:
    """What a request wants ranked, as a model knows it.

    Attributes:
        rows: [C] catalogue rows of the known items.
        new: the M items that come as text, by their places in the request.
        places: [C + M] places of the known items, then of the new ones.
        unknown: ids that the catalogue does not hold.
    """

    rows: NDArray[np.int32]
    new: dict[int, NewItem]
    places: NDArray[np.int64]
    unknown: list[str]

    @staticmethod
    def of(model: Recommender, request: RankRequest) -> Candidates:
        """Look a request's candidates up."""
        asked, new = request.candidates, {}
        places = np.arange(len(asked))
        if list(map(type, asked)).count(str) < len(asked):  # seldom, and there may be thousands
            new = {i: item for i, item in enumerate(asked) if not isinstance(item, str)}
            known = [place for place in places.tolist() if place not in new]
            asked, places = [asked[place] for place in known], np.array([*known, *new])
        rows, unknown = model.rows_of(cast(list[str], asked)), []
        if rows.min(initial=0) < 0:
            unknown = [str(asked[number]) for number in np.flatnonzero(rows < 0)]
            held = np.append(rows >= 0, np.full(len(new), True))
            rows, places = rows[rows >= 0], places[held]
        return Candidates(rows, new, places, unknown)


def recommend(
    model: Recommender,
    query: Query,
    encoded: EncodedHistory,
    request: RecommendRequest,
    defaults: Serve,
    verbs: Verbs,
    arm: str = ONLY.name,
    exploration: Exploration | None = None,
) -> Answer:
    """The best items that the request allows; where the arm explores, they are drawn.

    Args:
        model: scores.
        query: the user.
        encoded: its history, read by the model.
        request: what is asked for.
        defaults: stand in for what the request leaves open; neither asks for diversity or a cap
            where something is drawn.
        verbs: for explanations.
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
            encoded,
            k,
            exclude=excluded,
            allowed=allowed,
            diversity=asked_for("diversity", defaults.diversity),
            max_per_category=asked_for("max_per_category", defaults.max_per_category),
            exclude_owned=exclude_owned,
        )
    else:
        rows, scores, chances = model.draw(
            encoded, k, exploration,
            exclude=excluded, allowed=allowed, exclude_owned=exclude_owned,
        )  # fmt: skip
        propensities = chances.tolist()
    trace = current()
    trace.record_stage("score")
    unknown = [item for item, row in zip(request.exclude, excluded, strict=True) if row < 0]
    items: list[dict[str, Any]] = [
        {"item_id": item_id, "title": title, "score": score}
        for (item_id, title), score in zip(model.names(rows.tolist()), scores.tolist(), strict=True)
    ]
    if request.explain:
        found = model.explain(query.history, rows.astype(np.int32))
        for item, row, why in zip(items, rows.tolist(), found, strict=True):
            item["explanation"] = in_words(model, row, why, verbs)
        trace.record_stage("explain")
    return _answer(model, arm, query, items, unknown, propensities)


def rank(
    model: Recommender,
    query: Query,
    encoded: EncodedHistory,
    request: RankRequest,
    candidates: Candidates,
    text_vectors: NDArray[np.float32],
    verbs: Verbs,
    arm: str = ONLY.name,
    exploration: Exploration | None = None,
) -> Answer:
    """The request's candidates, best first, ties by position; drawn, where the arm explores.

    Args:
        model: scores.
        query: the user.
        encoded: its history, read by the model.
        request: what is asked for.
        candidates: the request's, as the model knows them; M are new items.
        text_vectors: [M, H] language-model vectors of the new items, in their order.
        verbs: for explanations.
        arm: whose model it is.
        exploration: draws; None: they are sorted.
    """
    rows, new = candidates.rows, candidates.new
    unknown = NewItems(text_vectors, fields_of(new.values())) if new else None
    scores = model.rank(encoded, rows, unknown)
    trace = current()
    trace.record_stage("score")
    place_of = candidates.places
    propensities = None
    if exploration is None:
        best = np.lexsort((place_of, -scores))[: request.k]
    else:
        drawn = exploration.draw(scores, len(scores) if request.k is None else request.k)
        best, propensities = drawn.places, drawn.propensities.tolist()
    # -1: a new item, named below; they come last among the scores.
    row_of = np.append(rows, np.full(len(new), -1, dtype=rows.dtype))[best].tolist()
    items: list[dict[str, Any]] = [
        {"item_id": item_id, "title": title, "score": score, "candidate": place}
        for (item_id, title), score, place in zip(
            model.names(row_of), scores[best].tolist(), place_of[best].tolist(), strict=True
        )
    ]
    if new:
        for item, row in zip(items, row_of, strict=True):
            if row < 0:
                given = new[item["candidate"]]
                item["item_id"], item["title"] = given.item_id, given.title
    if request.explain:
        # Of the answered items alone; the new ones come last, as in `Recommender.explain`.
        number_of = {place: number for number, place in enumerate(new)}
        of_row = list(zip(items, row_of, strict=True))
        old = [(item, row) for item, row in of_row if row >= 0]
        fresh = [(item, row) for item, row in of_row if row < 0]
        numbers = [number_of[item["candidate"]] for item, _ in fresh]
        explained = model.explain(
            query.history,
            np.array([row for _, row in old], dtype=np.int32),
            unknown.take(numbers) if unknown is not None else None,
        )
        for (item, row), why in zip([*old, *fresh], explained, strict=True):
            item["explanation"] = in_words(model, row, why, verbs)
        trace.record_stage("explain")
    return _answer(model, arm, query, items, candidates.unknown, propensities)


def in_words(model: Recommender, row: int, why: Explanation, verbs: Verbs) -> dict[str, Any]:
    """An explanation as the answer tells it, with ids, titles and a sentence.

    Args:
        model: names the items.
        row: the explained item; -1 if the catalogue does not hold it.
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
    sentence = "Popular with others."
    if why.reasons:
        first = why.reasons[0]
        times = "once" if first.count == 1 else f"{first.count} times"
        ((item_id, title),) = model.names([first.item_row])
        what = "it" if first.item_row == row else title or f"item {item_id}"
        sentence = (
            f"You {verbs[EVENT_TYPES[first.event_code]].replace('{}', what)} {times}, last on "
            f"{_moment(first.last_us):%Y-%m-%d}."
        )
    return {"sentence": sentence, "reasons": reasons, "parts": why.parts}


def _moment(us: int) -> dt.datetime:
    return EPOCH + dt.timedelta(microseconds=us)


def fields_of(items: Iterable[NewItem]) -> pl.DataFrame:
    """Brand, category and price of new items, as the catalogue has them."""
    names = {Col.brand: pl.String, Col.category: pl.String, Col.price: pl.Float64}
    return pl.DataFrame([item.model_dump(include=set(names)) for item in items], schema=names)


def to_json(answer: dict[str, Any]) -> bytes:
    """The answer, with the id of its request."""
    whole = {**answer, "request_id": current_id()}
    return pydantic_core.to_json(whole, inf_nan_mode="null")


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
