"""Requests of gRPC as what the models of `serve.schemas` are made of.

Plain loops: of 500 candidates and 100 events `json_format` makes a dictionary in 1.03 ms, this in
0.20 ms. An answer needs no such thing: a message of 100 items is made of its fields in 0.03 ms, its
JSON in 0.11 ms (one core of a CPU).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from serve.protos import ranking_pb2 as pb

Fields = dict[str, Any]


def recommend_fields(request: pb.RecommendRequest) -> Fields:
    """What `serve.schemas.requests.RecommendRequest` is made of."""
    found = _given(request) | _history(request)
    if request.HasField("filters"):
        found["filters"] = _given(request.filters)
    return found


def rank_fields(request: pb.RankRequest) -> Fields:
    """What `serve.schemas.requests.RankRequest` is made of."""
    # Only where an id is empty one has to look which of the two it is.
    candidates = [each.item_id or _candidate(each) for each in request.candidates]
    return _given(request) | _history(request) | {"candidates": candidates}


def events_fields(request: pb.EventsRequest) -> Fields:
    """What `serve.schemas.events.Events` is made of."""
    return _given(request) | {"events": [_event(event) for event in request.events]}


def _event(event: pb.Event) -> Fields:
    found = _given(event)
    if event.context:
        found["context"] = {name: _told(value) for name, value in event.context.items()}
    return found


def _told(value: pb.ContextValue) -> Any:
    """What a value of a context holds; None where it was left out, which is refused."""
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


def _history(request: pb.RecommendRequest | pb.RankRequest) -> Fields:
    if not request.HasField("history"):
        return {}
    return {"history": [_given(event) for event in request.history.events]}


def _candidate(candidate: pb.Candidate) -> str | Fields:
    return "" if candidate.HasField("item_id") else _given(candidate.new_item)


def _given(message: Message) -> Fields:
    """Names and values of the text, numbers and lists of text that were given."""
    always, optional, lists = _names(message.DESCRIPTOR)
    found: Fields = {name: getattr(message, name) for name in always}
    for name in optional:
        if message.HasField(name):
            found[name] = getattr(message, name)
    for name in lists:
        if values := getattr(message, name):
            found[name] = list(values)
    return found


@cache
def _names(kind: Descriptor) -> tuple[list[str], list[str], list[str]]:
    """Fields that are always there, that may be, and lists."""
    plain = [field for field in kind.fields if field.type != FieldDescriptor.TYPE_MESSAGE]
    single = [field for field in plain if not field.is_repeated]
    return (
        [field.name for field in single if not field.has_presence],
        [field.name for field in single if field.has_presence],
        [field.name for field in plain if field.is_repeated],
    )
