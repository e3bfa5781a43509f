"""The request models: what they take, what they refuse, and how the field is named."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from serve.schemas.events import MAX_EVENTS, Event, Events, EventsRequest
from serve.schemas.fields import microseconds
from serve.schemas.problems import field_name
from serve.schemas.requests import MAX_HISTORY, NewItem, RankRequest, RecommendRequest

EVENT = {"user_id": "u", "item_id": "i", "event_type": "view"}


def refused_at(model: Any, value: Any) -> set[str]:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(model).validate_python(value)
    branch_free = [
        [part for part in error["loc"] if not str(part).startswith("<")]
        for error in caught.value.errors()
    ]
    return {field_name(loc) for loc in branch_free}


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({}, "body"),
        ({"user_id": "u", "history": []}, "body"),
        ({"user_id": 7.5}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "a\0b"}, "user_id"),
        ({"user_id": "\ud800"}, "user_id"),
        ({"user_id": "u" * 257}, "user_id"),
        ({"user_id": "u", "k": 0}, "k"),
        ({"user_id": "u", "k": 2.5}, "k"),
        ({"user_id": "u", "k": True}, "k"),
        ({"user_id": "u", "k": "3"}, "k"),
        ({"user_id": "u", "kk": 3}, "kk"),
        ({"user_id": "u", "explain": 1}, "explain"),
        ({"user_id": "u", "exclude_owned": "yes"}, "exclude_owned"),
        ({"user_id": "u", "diversity": False}, "diversity"),
        ({"user_id": "u", "filters": {"min_price": False}}, "filters.min_price"),
        ({"user_id": "u", "exclude": [True]}, "exclude[0]"),
        ({"user_id": "u", "filters": {"brand": []}}, "filters.brand"),
        ({"user_id": "u", "filters": {"min_price": float("nan")}}, "filters.min_price"),
        ({"user_id": "u", "filters": {"min_price": -1}}, "filters.min_price"),
        ({"user_id": "u", "filters": {"min_price": 2, "max_price": 1}}, "filters"),
        ({"user_id": "u", "filters": {"colour": "red"}}, "filters.colour"),
        ({"history": [{"item_id": "i", "x": 1}]}, "history[0].x"),
        ({"history": [{"item_id": "i", "timestamp": 1700000000}]}, "history[0].timestamp"),
        ({"history": [{"item_id": "i", "timestamp": "1700000000"}]}, "history[0].timestamp"),
        ({"history": [{"item_id": "i", "timestamp": "2026-01-01T00:00:00"}]},
         "history[0].timestamp"),
        ({"history": [{"item_id": "i", "timestamp": "1969-12-31T23:59:59Z"}]},
         "history[0].timestamp"),
        ({"history": [{"item_id": "i"}, {"item_id": "j", "timestamp": "2026-01-01T00:00:00Z"}]},
         "history"),
        ({"history": [{"item_id": "i"}] * (MAX_HISTORY + 1)}, "history"),
    ],
)  # fmt: skip
def test_a_wrong_recommend_request_names_the_field(value: dict[str, Any], field: str) -> None:
    assert refused_at(RecommendRequest, value) == {field}


@pytest.mark.parametrize(
    ("candidate", "field"),
    [
        ("", "candidates[1]"),
        (7.5, "candidates[1]"),
        (None, "candidates[1]"),
        ({}, "candidates[1].title"),
        ({"title": "  \n"}, "candidates[1].title"),
        ({"title": " \x85"}, "candidates[1].title"),  # white to some engines of patterns alone
        ({"title": "\ufeff\x1f"}, "candidates[1].title"),
        ({"title": "x\0"}, "candidates[1].title"),
        ({"title": "x", "price": float("inf")}, "candidates[1].price"),
        ({"title": "x", "price": "3"}, "candidates[1].price"),
        ({"title": "x", "price": False}, "candidates[1].price"),
        ({"title": "x", "price": 3}, None),
        ({"title": "x", "colour": "red"}, "candidates[1].colour"),
    ],
)
def test_a_wrong_candidate_is_named(candidate: Any, field: str | None) -> None:
    request = {"user_id": "u", "candidates": ["a", candidate]}
    if field is None:
        TypeAdapter(RankRequest).validate_python(request)
    else:
        assert refused_at(RankRequest, request) == {field}


def test_a_whole_number_may_be_written_with_a_point() -> None:
    assert RecommendRequest.model_validate({"user_id": "u", "k": 2.0}).k == 2


def test_candidates_are_ids_or_new_items() -> None:
    request = RankRequest.model_validate({"user_id": "u", "candidates": ["a", {"title": "t"}]})
    assert request.candidates == ["a", NewItem(title="t")]


def test_one_event_or_several() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(EventsRequest)
    assert isinstance(adapter.validate_python(EVENT), Event)
    assert isinstance(adapter.validate_python({"events": [EVENT]}), Events)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({**EVENT, "timestamp": "soon"}, "timestamp"),
        ({**EVENT, "event_id": "seed:1:i:1:0"}, "event_id"),
        ({**EVENT, "extra": 1}, "extra"),
        ({"events": []}, "events"),
        ({"events": [EVENT] * (MAX_EVENTS + 1)}, "events"),
        ({"events": [EVENT, {**EVENT, "user_id": None}], "atomic": True}, "events[1].user_id"),
        ([EVENT], "body"),
        ("x", "body"),
        (None, "body"),
    ],
)
def test_a_wrong_event_is_named(value: Any, field: str) -> None:
    assert refused_at(EventsRequest, value) == {field}


def test_microseconds() -> None:
    zone = dt.timezone(dt.timedelta(hours=2))
    moment = dt.datetime(1970, 1, 1, 2, 0, 1, 5, tzinfo=zone)
    assert microseconds(moment) == 1_000_005
