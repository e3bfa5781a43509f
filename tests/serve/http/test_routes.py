"""The HTTP application in this process: answers, refusals, and input that must not break it."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import polars as pl
import pytest
from bundles import SOLD_OUT, THINGS, item_id, make_items
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ray_jobs import compact
from recsys.artifacts.run import Run
from recsys.config import Recipe
from recsys.data.feedback import Feedback, finished
from recsys.schema import Col
from serve.core.service import Service
from serve.http import routes
from serve.http.routes import _add_routes, build_http
from serve.schemas.requests import MAX_NEW_ITEMS

SESSION = [{"item_id": item_id(3)}, {"item_id": item_id(40), "event_type": "click"}]


def post(client: TestClient, path: str, body: Any, status: int = 200) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    return dict(response.json())


def refused_at(answer: dict[str, Any]) -> list[str]:
    return [problem["field"] for problem in answer["detail"]]


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


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


class TestExplanations:
    HISTORY = [
        {"item_id": item_id(row), "event_type": kind, "timestamp": f"2026-05-0{day}T10:00:00Z"}
        for day, (row, kind) in enumerate(
            [(3, "purchase"), (40, "click"), (3, "purchase"), (77, "view")], start=1
        )
    ]

    def test_none_unless_asked_for(self, client: TestClient) -> None:
        answer = post(client, "/recommend", {"history": self.HISTORY})
        assert all("explanation" not in item for item in answer["items"])

    def test_without_the_named_item_the_score_is_lower(self, client: TestClient) -> None:
        body = {"history": self.HISTORY, "k": 20, "explain": True}
        answer = post(client, "/recommend", body)
        named = 0
        for item in answer["items"]:
            why = item["explanation"]
            assert sum(why["parts"].values()) == pytest.approx(item["score"], abs=1e-3)
            for reason in why["reasons"]:
                less = [event for event in self.HISTORY if event["item_id"] != reason["item_id"]]
                asked = {"history": less, "candidates": [item["item_id"]]}
                (again,) = post(client, "/rank", asked)["items"]
                # The clock goes on between the two requests.
                assert item["score"] - again["score"] == pytest.approx(reason["gain"], abs=1e-2)
                named += reason["gain"] > 0.02
        assert named > 5

    def test_a_sentence_says_what_was_done(self, client: TestClient) -> None:
        body = {"history": self.HISTORY, "k": 50, "explain": True}
        items = post(client, "/recommend", body)["items"]
        sentences = [item["explanation"]["sentence"] for item in items]
        titles = dict(make_items().select(Col.item, Col.title).rows())
        assert f"You bought {titles[item_id(3)]} 2 times, last on 2026-05-03." in sentences
        assert f"You clicked {titles[item_id(40)]} once, last on 2026-05-02." in sentences
        nobody = post(client, "/recommend", {"user_id": "nobody", "explain": True})["items"]
        assert {item["explanation"]["sentence"] for item in nobody} == {"Popular with others."}

    def test_candidates_old_and_new(self, client: TestClient) -> None:
        new = {"title": "a new red cup", "price": 5}
        body = {"history": self.HISTORY, "candidates": [item_id(3), new, item_id(9)], "k": 3}
        plain = post(client, "/rank", body)["items"]
        told = post(client, "/rank", body | {"explain": True})["items"]
        assert [item["candidate"] for item in told] == [item["candidate"] for item in plain]
        for item in told:
            parts = item["explanation"]["parts"]
            assert sum(parts.values()) == pytest.approx(item["score"], abs=1e-3)
            if item["candidate"] == 1:
                assert parts["history"] == 0
            reasons = item["explanation"]["reasons"]
            if item["candidate"] == 0 and reasons and reasons[0]["item_id"] == item_id(3):
                assert item["explanation"]["sentence"].startswith("You bought it 2 times")


def test_the_next_answer_knows_of_an_event(client: TestClient) -> None:
    before = post(client, "/recommend", {"user_id": "u1"})
    event = {"user_id": "u1", "item_id": item_id(77), "event_type": "purchase"}
    stored = post(client, "/events", event)
    assert (stored["received"], stored["stored"], stored["ignored"]) == (1, 1, 0)
    after = post(client, "/recommend", {"user_id": "u1"})
    assert (before["basis"], after["basis"]) == ("popularity", "personal")
    assert after["items"] != before["items"]
    assert post(client, "/recommend", {"user_id": "u2"})["items"] == before["items"]


def test_an_event_sent_again_counts_once(client: TestClient) -> None:
    event = {"event_id": "e1", "user_id": "u", "item_id": item_id(1), "event_type": "buy"}
    assert post(client, "/events", {"events": [event, event]})["stored"] == 1
    assert post(client, "/events", event)["stored"] == 0


def test_an_event_of_a_type_that_is_left_out_is_ignored(client: TestClient) -> None:
    event = {"user_id": "u", "item_id": item_id(1), "event_type": "ping"}
    answer = post(client, "/events", event)
    assert (answer["stored"], answer["ignored"]) == (0, 1)


def test_an_event_of_an_unknown_item_is_kept_and_told(client: TestClient) -> None:
    event = {"user_id": "u", "item_id": "next season", "event_type": "view"}
    answer = post(client, "/events", event)
    assert (answer["stored"], answer["unknown_items"]) == (1, ["next season"])
    assert post(client, "/recommend", {"user_id": "u"})["basis"] == "popularity"


def test_a_clock_that_runs_ahead_a_little_is_borne(client: TestClient) -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
    event = {"user_id": "u", "item_id": item_id(1), "event_type": "view", "timestamp": f"{soon}"}
    post(client, "/events", event)
    assert post(client, "/recommend", {"user_id": "u"})["basis"] == "personal"


@pytest.mark.parametrize("many", [False, True])
def test_an_event_of_the_future_is_refused(client: TestClient, many: bool) -> None:
    future = (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=400)).isoformat()
    event = {"user_id": "u", "item_id": item_id(1), "event_type": "view", "timestamp": future}
    good = {**event, "timestamp": None}
    body = {"events": [good, event]} if many else event
    field = "events[1].timestamp" if many else "timestamp"
    assert refused_at(post(client, "/events", body, 422)) == [field]
    assert post(client, "/recommend", {"user_id": "u"})["basis"] == "popularity"  # all or none
    history = {"history": [{"item_id": item_id(1), "timestamp": future}]}
    assert refused_at(post(client, "/recommend", history, 422)) == ["history[0].timestamp"]


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


def test_ranking_known_and_new_items(client: TestClient) -> None:
    new = {"title": "green lamp 12", "brand": "acme", "price": 12.5, "item_id": "mine"}
    candidates = [item_id(5), new, item_id(9), {"title": "blue bag"}]
    answer = post(client, "/rank", {"history": SESSION, "candidates": candidates})
    places = [item["candidate"] for item in answer["items"]]
    by_place = {item["candidate"]: item for item in answer["items"]}
    assert sorted(places) == [0, 1, 2, 3]
    assert by_place[0]["item_id"] == item_id(5)
    assert (by_place[1]["item_id"], by_place[1]["title"]) == ("mine", "green lamp 12")
    assert (by_place[3]["item_id"], by_place[3]["title"]) == (None, "blue bag")
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    best = post(client, "/rank", {"history": SESSION, "candidates": candidates, "k": 1})
    assert best["items"] == answer["items"][:1]


def test_ranking_and_recommending_score_alike(client: TestClient) -> None:
    history = [{**event, "timestamp": "2026-05-01T00:00:00Z"} for event in SESSION]
    whole = post(client, "/recommend", {"history": history, "k": 20})
    ranked = post(client, "/rank", {"history": history, "candidates": ids(whole)[::-1]})
    for one, other in zip(whole["items"], ranked["items"], strict=True):
        assert one["item_id"] == other["item_id"]
        # Not equal to the last digit: time passes between the two questions.
        assert one["score"] == pytest.approx(other["score"], abs=1e-3)


def test_unknown_candidates_are_named_and_the_rest_is_ranked(client: TestClient) -> None:
    known = [item_id(1), {"title": "new"}, item_id(2)]
    wanted = post(client, "/rank", {"user_id": "u", "candidates": known})
    mixed = ["gone", item_id(1), "gone too", {"title": "new"}, item_id(2), "gone"]
    answer = post(client, "/rank", {"user_id": "u", "candidates": mixed, "explain": True})
    assert answer["unknown_items"] == ["gone", "gone too"]
    place_of = {0: 1, 1: 3, 2: 4}
    for found, expected in zip(answer["items"], wanted["items"], strict=True):
        assert found["candidate"] == place_of[expected["candidate"]]
        assert found["score"] == pytest.approx(expected["score"])
    nothing = post(client, "/rank", {"user_id": "u", "candidates": ["gone"]})
    assert (nothing["items"], nothing["unknown_items"]) == ([], ["gone"])


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/recommend", {"user_id": "u", "k": 51}, "k"),
        ("/recommend", {"user_id": "u", "k": 10**30}, "k"),
        ("/recommend", {"history": [{"item_id": "i", "event_type": "stare"}]},
         "history[0].event_type"),
        ("/rank", {"user_id": "u", "candidates": [item_id(1)], "k": 41}, "k"),
        ("/rank", {"user_id": "u", "candidates": [item_id(1)] * 41}, "candidates"),
        ("/rank", {"user_id": "u", "candidates": []}, "candidates"),
        ("/events", {"user_id": "u", "item_id": "i", "event_type": "stare"}, "event_type"),
        ("/events", {"events": [{"user_id": "u", "item_id": "i", "event_type": "stare"}]},
         "events[0].event_type"),
    ],
)  # fmt: skip
def test_limits_of_the_recipe(client: TestClient, path: str, body: Any, field: str) -> None:
    assert refused_at(post(client, path, body, 422)) == [field]


@pytest.mark.parametrize("serve_settings", [{"max_candidates": 1000}])
def test_only_so_many_new_items(client: TestClient) -> None:
    body = {"user_id": "u", "candidates": [{"title": "a"}] * (MAX_NEW_ITEMS + 1)}
    assert refused_at(post(client, "/rank", body, 422)) == ["candidates"]


RAW = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"\xff\xfe",
    b'{"user_id": "\xc3"}',
    b'{"user_id": "u", "k": NaN}',
    b'{"user_id": "u", "k": -Infinity}',
    b'{"user_id": "u", "k": ' + b"9" * 5000 + b"}",
    b'{"user_id": "u", "k": 1e400}',
    b'{"user_id": "\\ud800"}',
    b'{"\\ud800": 1, "user_id": "u"}',
    b'{"user_id": "\\u0000"}',
    b'{"user_id": "u", "filters": {"min_price": NaN}}',
    b'{"user_id": "u", "exclude": ["\\udfff"]}',
    b'{"history": [{"item_id": "\\u0000"}]}',
    b"[" * 200_000,
    b'{"user_id":' + b'{"a":' * 50_000,
    b'{"' + b"x" * 500_000 + b'": 1}',
]


@pytest.mark.parametrize("path", ["/recommend", "/rank", "/events"])
@pytest.mark.parametrize("body", RAW, ids=lambda v: repr(v)[:30])
def test_broken_bodies_are_the_senders_fault(client: TestClient, path: str, body: bytes) -> None:
    response = client.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422), response.text[:200]
    assert len(response.content) < 5000
    assert all(response.json()["detail"])


SURROGATES = st.text(st.characters(), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | SURROGATES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SURROGATES, inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["user_id", "history", "k", "exclude", "filters", "candidates", "events", "item_id",
          "event_type", "timestamp", "event_id", "title", "price"]  # fmt: skip
BODIES = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5) | JSON


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(path=st.sampled_from(["/recommend", "/rank", "/events"]), body=BODIES)
def test_no_body_gives_a_server_error(client: TestClient, path: str, body: Any) -> None:
    response = client.post(
        path, content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert all(problem["field"] for problem in response.json()["detail"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/recommend", {"history": [{"item_id": item_id(1)}], "k": 3}),
        ("/recommend", {"user_id": "nobody", "k": 0}),
        ("/recommend", {"user_id": "nobody", "k": 2.0}),
        ("/recommend", {"user_id": "nobody", "filters": {"min_price": 2, "max_price": 1}}),
        ("/rank", {"user_id": "nobody", "candidates": [item_id(1), item_id(0)]}),
        ("/rank", {"user_id": "nobody", "candidates": [item_id(1), {"title": "a red lamp"}]}),
        ("/rank", {"user_id": "nobody", "candidates": [item_id(1), "who"]}),
        ("/rank", {"user_id": "nobody", "candidates": []}),
        ("/events", {"user_id": "x", "item_id": item_id(1), "event_type": "view", "event_id": "1"}),
        ("/events", {"events": [{"user_id": "x", "item_id": "y", "event_type": "who"}]}),
        ("/events", {"user_id": "x", "item_id": item_id(1), "event_type": "view",
                     "timestamp": 1}),
        ("/events", []),
    ],
)  # fmt: skip
def test_past_the_framework_and_through_it_the_answer_is_the_same(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch, path: str, body: Any
) -> None:
    monkeypatch.setattr(routes, "FastLane", lambda app, lanes: app)
    through = TestClient(build_http(service), raise_server_exceptions=False)
    kinds = ("application/json; charset=utf-8", "application/merge-patch+json")
    fast, slow = (
        each.post(
            path, content=json.dumps(body),
            headers={"Content-Type": kind, "X-Request-Id": "the-same"},
        )
        for each, kind in zip((client, through), kinds, strict=True)
    )  # fmt: skip
    assert fast.status_code == slow.status_code
    if path == "/events" and fast.status_code == 200:  # the second time it is known
        assert (fast.json()["stored"], slow.json()["stored"]) == (1, 0)
        return
    assert fast.json() == slow.json()
    assert fast.headers == slow.headers


@pytest.mark.parametrize(
    ("path", "body", "takes"),
    [
        ("/recommend", {"history": [{"item_id": "a"}], "k": 3, "diversity": 0.5}, True),
        ("/rank", {"user_id": "nobody", "candidates": ["a", "b"], "k": 1}, True),
        ("/rank", {"user_id": "nobody", "candidates": ["a", {"title": "a red lamp"}]}, False),
        ("/events", {"user_id": "x", "item_id": "a", "event_type": "view"}, True),
        ("/events", {"events": [{"user_id": "x", "item_id": "a", "event_type": "view"}]}, True),
    ],
)
def test_what_goes_past_the_framework(
    client: TestClient, service: Service, path: str, body: Any, takes: bool
) -> None:
    body_type, _ = _add_routes(FastAPI(), service)[path]
    with nullcontext() if takes else pytest.raises(ValidationError):
        body_type.validate_json(json.dumps(body))


def test_what_is_not_said_to_be_json_is_not_taken_for_it(client: TestClient) -> None:
    """A page of another site could send it without asking the browser first."""
    body = json.dumps({"user_id": "nobody"})
    for kind in (
        "text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=latin-1",
        "application/jsonp", "text/json", "json",
        "application/json; boundary=x; charset=latin-1", "application/json; charset=utf-16",
    ):  # fmt: skip
        answer = client.post("/recommend", content=body, headers={"Content-Type": kind})
        assert (answer.status_code, refused_at(answer.json())) == (415, ["body"]), kind
        assert "content-type: application/json" in answer.json()["detail"][0]["msg"]


@pytest.mark.parametrize(
    "kind",
    [
        "application/json;charset=UTF-8;", "application/json; charset=utf-8; x=1",
        'Application/JSON; charset="utf-8"', "application/vnd.shop+json",
    ],
)  # fmt: skip
def test_json_may_say_more_of_itself(client: TestClient, kind: str) -> None:
    body = json.dumps({"user_id": "nobody"})
    answer = client.post("/recommend", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 200


def test_an_id_is_one_whatever_stands_beside_it(client: TestClient) -> None:
    for candidates in ([2.0], [2.0, {"title": "red cup"}], [2, {"title": "red cup"}]):
        answer = post(client, "/rank", {"user_id": "nobody", "candidates": candidates})
        assert answer["unknown_items"] == ["2"]
    # Read as a float, 2**53 + 1 is 2**53.
    post(client, "/rank", {"user_id": "nobody", "candidates": [float(2**53 + 1)]}, 422)


def test_a_body_that_is_packed_is_refused_as_that(client: TestClient) -> None:
    body, kind = gzip.compress(b'{"user_id": "nobody"}'), {"Content-Type": "application/json"}
    for how, status in (("gzip", 415), ("br", 415), ("identity", 400)):
        answer = client.post("/recommend", content=body, headers={**kind, "Content-Encoding": how})
        assert answer.status_code == status, how


@pytest.mark.parametrize("body", [b'{"k":', b"", b"{,}", b"\xff", b"nothing"])
@pytest.mark.parametrize("path", ["/recommend", "/events", "/items", "/users/erase"])
def test_what_is_no_json_is_told_so(client: TestClient, path: str, body: bytes) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (400, "json_invalid")


def test_head_is_answered_as_get_is_without_the_body(client: TestClient) -> None:
    for path in ("/healthz", "/readyz", "/model", "/openapi.json", "/docs", f"/items/{item_id(1)}"):
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == got.headers["content-length"] or path == "/model"
    assert client.head("/recommend").status_code == 405


def test_nothing_leads_to_another_host(client: TestClient) -> None:
    for path in ("/recommend/", "/healthz/", "/docs/", "/users/erase/"):
        for method in ("GET", "POST"):
            answer = client.request(
                method, path, headers={"Host": "evil.example"}, follow_redirects=False
            )
            assert answer.status_code in (404, 405, 422), path
            assert "evil.example" not in str(answer.headers) + answer.text


def test_an_integer_is_an_id_as_it_is_in_the_log(client: TestClient) -> None:
    event = {"user_id": 7, "item_id": item_id(1), "event_type": "buy", "event_id": 1}
    assert post(client, "/events", event)["stored"] == 1
    assert post(client, "/recommend", {"user_id": "7"})["basis"] == "personal"
    assert post(client, "/recommend", {"user_id": 7.0})["basis"] == "personal"
    answer = post(client, "/rank", {"user_id": 7, "candidates": [12, item_id(1)]})
    assert answer["unknown_items"] == ["12"]
    for wrong in (7.5, True, None, [7], 1e300, "a\tb"):
        refused = post(client, "/events", {**event, "user_id": wrong}, 422)
        assert refused_at(refused) == ["user_id"]


def test_health_and_model(client: TestClient, bundle: Path) -> None:
    version = json.loads((bundle / "bundle.json").read_text())["version"]
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok", "model_version": version}
    model = client.get("/model").json()
    assert (model["version"], model["num_items"]) == (version, 300)
    assert model["info"]["name"] == "tiny"
    assert model["failed_update"] is None


def test_documentation(client: TestClient) -> None:
    assert client.get("/docs").status_code == 200
    schema = client.get("/openapi.json").json()
    assert {"/recommend", "/rank", "/events", "/healthz", "/readyz", "/model"} <= schema[
        "paths"
    ].keys()
    undescribed = [
        f"{model}.{field}"
        for model, definition in schema["components"]["schemas"].items()
        for field, spec in definition.get("properties", {}).items()
        # A field that is another model is described there.
        if not {"description", "$ref"} & spec.keys() and field not in ("items", "detail")
        and model not in ("HTTPValidationError", "ValidationError")
    ]  # fmt: skip
    assert undescribed == []


def test_wrong_method_and_path(client: TestClient) -> None:
    for response, status in ((client.get("/recommend"), 405), (client.post("/nothing"), 404)):
        assert response.status_code == status
        (problem,) = response.json()["detail"]
        assert problem["field"] == "body" and problem["msg"]
    assert client.get("/recommend").headers["allow"] == "POST"


@pytest.mark.parametrize("filler", [b"0", b"{}", b'"a"'])
def test_a_body_full_of_candidates_is_refused_at_once(client: TestClient, filler: bytes) -> None:
    """Looking at each of them would hold up the replica for seconds."""
    count = (1 << 20) // (len(filler) + 1) - 100
    body = b'{"user_id": "u", "candidates": [' + b",".join([filler] * count) + b"]}"
    started = time.monotonic()
    headers = {"content-type": "application/json"}
    response = client.post("/rank", content=body, headers=headers)
    assert response.status_code == 422
    assert response.json()["detail"][0]["field"].startswith("candidates"), response.text
    assert time.monotonic() - started < 2


class TestErasure:
    def test_nothing_of_before_is_known_and_what_comes_after_is(
        self, client: TestClient, service: Service
    ) -> None:
        event = {"event_id": "e1", "item_id": item_id(7), "event_type": "buy"}
        odd = "a/b %ä"
        sent = [event | {"user_id": user} for user in ("u", odd)]
        for each in sent:
            each["timestamp"] = "2026-05-01T00:00:00Z"
        assert post(client, "/events", {"events": sent})["stored"] == 2
        nobody = client.delete("/users/nobody").json()
        assert (nobody["erased"], nobody["held"]) == (0, False)
        for erased in (
            client.delete(f"/users/{quote(odd, safe='')}"),
            client.post("/users/erase", json={"user_id": "u"}),
        ):
            assert erased.status_code == 200
            assert (erased.json()["erased"], erased.json()["held"]) == (1, True)
        for user in ("u", odd):
            assert post(client, "/recommend", {"user_id": user})["basis"] == "popularity"
        # A sender that sends once more what it sent before does not bring the user back.
        again = post(client, "/events", {"events": sent})
        assert (again["stored"], again["older_than_erasure"]) == (0, [0, 1])
        assert (again["repeated"], again["conflicts"]) == ([], [])
        assert post(client, "/events", event | {"event_id": "e2", "user_id": "u"})["stored"] == 1
        assert post(client, "/recommend", {"user_id": "u"})["basis"] == "personal"

    @pytest.mark.parametrize(
        ("user", "at"),
        [
            ("", "user_id"), ("x" * 257, "user_id"), ("x77/", "user_id"), ("a/b", "user_id"),
            ("%ff", "user_id"), ("%00", "path"), ("nlcheck%0A", "path"), ("a%0Ab", "path"),
            ("%0A", "path"), ("%09x", "path"), ("%7F", "path"),
        ],
    )  # fmt: skip
    def test_an_id_that_no_user_has_is_refused(
        self, client: TestClient, user: str, at: str
    ) -> None:
        """And nobody is erased in its place."""
        others = ["nlcheck", "x77", "a", "x"]
        for other in others:
            post(client, "/events", {"user_id": other, "item_id": item_id(1), "event_type": "buy"})
        answer = client.delete(f"/users/{user}")
        assert answer.status_code == 422, answer.text
        assert refused_at(answer.json()) == [at]
        for other in others:
            assert post(client, "/recommend", {"user_id": other})["basis"] == "personal"

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    def test_so_it_is_with_items(self, client: TestClient, method: str) -> None:
        for name in (f"{item_id(1)}%0A", f"{item_id(1)}/", f"{item_id(1)}/x"):
            assert client.request(method, f"/items/{name}").status_code == 422, name

    def test_a_new_history_is_kept_whatever_a_clock_had_said(
        self, client: TestClient, service: Service
    ) -> None:
        ahead = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=4)
        first = {"user_id": "u", "item_id": item_id(1), "event_type": "buy", "event_id": "1"}
        post(client, "/events", {**first, "timestamp": ahead.isoformat()})
        client.delete("/users/u")
        assert post(client, "/recommend", {"user_id": "u"})["basis"] == "popularity"
        again = post(client, "/events", {**first, "timestamp": ahead.isoformat()})
        assert (again["stored"], again["older_than_erasure"]) == (0, [0])
        assert post(client, "/events", {**first, "event_id": "2"})["stored"] == 1
        assert post(client, "/recommend", {"user_id": "u"})["basis"] == "personal"


class TestEventIds:
    LINE: ClassVar = {"user_id": "u", "event_type": "buy", "event_id": "order-17"}

    def test_another_event_under_a_held_id_is_a_conflict(self, client: TestClient) -> None:
        first, second = ({**self.LINE, "item_id": item_id(row)} for row in (1, 2))
        assert post(client, "/events", first)["stored"] == 1
        again = post(client, "/events", first)
        assert (again["stored"], again["repeated"]) == (0, [{"event": 0, "event_id": "order-17"}])
        assert refused_at(post(client, "/events", second, 409)) == ["event_id"]

    def test_an_order_s_number_on_each_of_its_lines_is_told(self, client: TestClient) -> None:
        lines = [{**self.LINE, "item_id": item_id(row)} for row in (1, 2, 1)]
        answer = post(client, "/events", {"events": lines})
        assert (answer["stored"], [each["event_id"] for each in answer["repeated"]]) == (
            1,
            ["order-17"],
        )
        assert answer["conflicts"] == [{"event": 1, "event_id": "order-17", "status": 409}]


def test_what_else_an_event_tells_is_kept_for_the_next_model(
    client: TestClient, service: Service, recipe: Recipe
) -> None:
    told = {
        "session_id": "visit-of-ann", "request_id": "0a.B-_", "position": 3, "dwell_ms": 1200,
        "price": 9.5, "quantity": 2.0,
    }  # fmt: skip
    event = {"user_id": "ann", "item_id": item_id(1), "event_type": "buy"}
    assert post(client, "/events", {"events": [{**event, **told}, event]})["stored"] == 2
    feedback = Feedback.of(recipe.root)
    compact.execute(Run.open(recipe))
    rows = pl.concat([pl.read_parquet(path) for path in finished(feedback.events)])
    kept = rows.sort(Col.position, nulls_last=True).to_dicts()
    session = kept[0].pop(Col.session)
    assert {name: kept[0][name] for name in told if name != "session_id"} == {
        name: value for name, value in told.items() if name != "session_id"
    }
    assert len(session) == 32 and "ann" not in session
    assert all(kept[1][name] is None for name in told)
    most = {
        "session_id": "s" * 256, "request_id": "r" * 64, "position": 2**31 - 1,
        "dwell_ms": 2**31 - 1, "price": 1e12, "quantity": -1e9,
    }  # fmt: skip
    assert post(client, "/events", {**event, **most})["stored"] == 1
    compact.execute(Run.open(recipe))
    for name, wrong in (
        ("position", 0), ("position", 2**31), ("dwell_ms", -1), ("dwell_ms", 2**31),
        ("price", -1.0), ("request_id", "a b"),
        ("quantity", "1"),
    ):  # fmt: skip
        assert refused_at(post(client, "/events", {**event, name: wrong}, 422)) == [name]


def test_without_keys_there_are_no_user_tokens(client: TestClient) -> None:
    answer = client.post("/users/token", json={"user_id": "u"})
    assert answer.status_code == 404
    assert "serve.access.keys" in answer.json()["detail"][0]["msg"]
    assert "/users/token" not in client.get("/openapi.json").json()["paths"]
