"""/recommend: users, sessions, rules, filters."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from bundles import SOLD_OUT, THINGS, make_items
from fastapi.testclient import TestClient
from http_calls import SESSION, ids, post, refused_at

from recsys.schema import Col


def test_an_unknown_user_gets_what_is_popular(client: TestClient) -> None:
    answer = post(client, "/recommend", {"user_id": "nobody"})
    scores = [item["score"] for item in answer["items"]]
    assert answer["basis"] == "popularity"
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert answer["model_version"].startswith("tiny-")
    assert ids(answer) == ids(post(client, "/recommend", {"history": []}))


def test_a_session_is_read(client: TestClient) -> None:
    answer = post(client, "/recommend", {"history": SESSION, "k": 50})
    assert answer["basis"] == "session"
    assert len(set(ids(answer))) == 50
    assert ids(answer) != ids(post(client, "/recommend", {"user_id": "nobody", "k": 50}))


def test_unknown_items_of_a_session_are_listed_and_ignored(client: TestClient) -> None:
    known = [{**event, "timestamp": "2026-05-01T00:00:00Z"} for event in SESSION]
    strange = {"item_id": "gone", "timestamp": "2026-05-01T00:00:00Z"}
    answer = post(client, "/recommend", {"history": [strange, *known, strange]})
    assert answer["unknown_items"] == ["gone"]
    assert answer["basis"] == "session"
    assert ids(answer) == ids(post(client, "/recommend", {"history": known}))
    only_strange = post(client, "/recommend", {"history": [strange]})
    assert only_strange["basis"] == "popularity"


class TestRules:
    def test_a_cap_on_categories(self, client: TestClient) -> None:
        category = dict(make_items().select(Col.item, Col.category).rows())
        free = post(client, "/recommend", {"history": SESSION, "k": 10})
        capped = post(client, "/recommend", {"history": SESSION, "k": 10, "max_per_category": 2})
        counts = Counter(category[item] for item in ids(capped))
        assert set(counts.values()) == {2} and len(ids(capped)) == 10
        assert max(Counter(category[item] for item in ids(free)).values()) > 2
        few = post(client, "/recommend", {"history": SESSION, "k": 50, "max_per_category": 3})
        assert len(ids(few)) == 3 * len(THINGS)

    def test_diversity_keeps_the_first_and_changes_the_rest(self, client: TestClient) -> None:
        plain = ids(post(client, "/recommend", {"history": SESSION, "k": 20}))
        assert (
            ids(post(client, "/recommend", {"history": SESSION, "k": 20, "diversity": 0})) == plain
        )
        other = ids(post(client, "/recommend", {"history": SESSION, "k": 20, "diversity": 0.9}))
        assert other[0] == plain[0] and other != plain and len(set(other)) == 20

    def test_what_is_owned_stays_out(self, client: TestClient) -> None:
        best = ids(post(client, "/recommend", {"history": SESSION, "k": 3}))
        history = [
            {"item_id": best[0], "event_type": "purchase"},
            {"item_id": best[1], "event_type": "view"},
        ]
        answer = post(client, "/recommend", {"history": history, "k": 50, "exclude_owned": True})
        assert best[0] not in ids(answer)
        assert best[1] in ids(answer)

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"diversity": 1.5}, "diversity"),
            ({"diversity": "much"}, "diversity"),
            ({"max_per_category": 0}, "max_per_category"),
            ({"exclude_owned": 3}, "exclude_owned"),
            ({"explain": "why"}, "explain"),
        ],
    )
    def test_nonsense_is_refused(self, client: TestClient, body: Any, field: str) -> None:
        assert refused_at(post(client, "/recommend", {"user_id": "u"} | body, 422)) == [field]


def test_filters_and_exclusion(client: TestClient) -> None:
    table = {row[Col.item]: row for row in make_items().iter_rows(named=True)}
    filters = {"category": ["cup", "pen"], "brand": ["acme"], "min_price": 20, "max_price": 250}
    first = post(client, "/recommend", {"user_id": "u", "k": 50, "filters": filters})
    assert ids(first)
    for item in ids(first):
        row = table[item]
        assert row[Col.category] in ("cup", "pen")
        assert row[Col.brand] == "acme"
        assert 20 <= row[Col.price] <= 250
    gone = ids(first)[:2]
    second = post(
        client, "/recommend",
        {"user_id": "u", "k": 50, "filters": filters, "exclude": [*gone, "strange"]},
    )  # fmt: skip
    assert ids(second) == ids(first)[2:]
    assert second["unknown_items"] == ["strange"]


def test_a_filter_that_nothing_passes_gives_an_empty_answer(client: TestClient) -> None:
    answer = post(client, "/recommend", {"user_id": "u", "filters": {"brand": ["none"]}})
    assert answer["items"] == []


def test_a_sold_out_item_is_never_recommended(client: TestClient) -> None:
    for thing in THINGS:
        body = {"user_id": "u", "k": 50, "filters": {"category": [thing], "min_price": 280}}
        assert SOLD_OUT not in ids(post(client, "/recommend", body))
