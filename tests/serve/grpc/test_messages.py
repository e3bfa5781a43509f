from __future__ import annotations

from serve.grpc.messages import events_fields, rank_fields, recommend_fields
from serve.protos import ranking_pb2 as pb


def test_fields_that_were_not_given_are_not_there() -> None:
    assert recommend_fields(pb.RecommendRequest()) == {"explain": False}
    assert rank_fields(pb.RankRequest(history={})) == {
        "explain": False, "history": [], "candidates": [],
    }  # fmt: skip
    assert events_fields(pb.EventsRequest(events=[{"timestamp": ""}])) == {
        "atomic": False,
        "events": [{"user_id": "", "item_id": "", "event_type": "", "timestamp": ""}],
    }
