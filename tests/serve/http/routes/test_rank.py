"""/rank: candidates that the catalogue holds, new ones, unknown ones, very many."""

from __future__ import annotations

import time

import pytest
from bundles import item_id
from fastapi.testclient import TestClient
from http_calls import SESSION, ids, post, refused_at

from serve.schemas.requests import MAX_NEW_ITEMS


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


@pytest.mark.parametrize("serve_settings", [{"max_candidates": 1000}])
def test_only_so_many_new_items(client: TestClient) -> None:
    body = {"user_id": "u", "candidates": [{"title": "a"}] * (MAX_NEW_ITEMS + 1)}
    assert refused_at(post(client, "/rank", body, 422)) == ["candidates"]


def test_an_id_is_one_whatever_stands_beside_it(client: TestClient) -> None:
    for candidates in ([2.0], [2.0, {"title": "red cup"}], [2, {"title": "red cup"}]):
        answer = post(client, "/rank", {"user_id": "nobody", "candidates": candidates})
        assert answer["unknown_items"] == ["2"]
    # Read as a float, 2**53 + 1 is 2**53.
    post(client, "/rank", {"user_id": "nobody", "candidates": [float(2**53 + 1)]}, 422)


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
