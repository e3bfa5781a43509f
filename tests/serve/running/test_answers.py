"""What a running service answers and refuses, over HTTP and gRPC."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from pathlib import Path

import grpc
import httpx
import pytest
from bundles import SOLD_OUT, item_id, version_in
from running_service import Running
from services import make_service

from recsys.artifacts.bundle import Bundle
from recsys.config import load_recipe
from recsys.data.histories import US_PER_DAY, Histories
from recsys.recommender.loading import load_scorer
from recsys.schema import EVENT_CODE
from serve.protos import ranking_pb2 as pb
from serve.protos.ranking_pb2_grpc import RankingStub
from serve.ray.ports import END, FIRST

pytestmark = [pytest.mark.serve, pytest.mark.ray]


def test_health_model_and_docs(running: Running, bundle: Path) -> None:
    assert running.printed["service"] == running.url
    assert httpx.get(f"{running.url}/healthz").json() == {"status": "ok"}
    ready = httpx.get(f"{running.url}/readyz").json()
    assert ready == {"status": "ok", "model_version": version_in(bundle)}
    assert running.model()["num_items"] == 300
    assert httpx.get(f"{running.url}/docs").status_code == 200


def test_offline_scores_are_the_scores_over_http(running: Running, bundle: Path) -> None:
    """The golden test: one function scores in the evaluation and behind the proxy."""
    clock = time.time_ns() // 1000
    days_ago, rows = (40, 12, 12, 3), (3, 40, 41, 3)
    times = [clock - days * US_PER_DAY for days in days_ago]
    history = Histories.of(rows, [EVENT_CODE["purchase"]] * 4, times, clock)
    scores = load_scorer(Bundle.open(bundle)).scores(history)[0]
    session = [
        {
            "item_id": item_id(row),
            "event_type": "purchase",
            "timestamp": dt.datetime.fromtimestamp(moment / 1e6, dt.UTC).isoformat(),
        }
        for row, moment in zip(rows, times, strict=True)
    ]
    answer = running.post("/recommend", {"history": session, "k": 50})
    expected = {item_id(row): float(score) for row, score in enumerate(scores)}
    found = {item["item_id"]: item["score"] for item in answer["items"]}
    # The service's clock is a moment ahead of ours.
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-4)
    best = sorted((score for name, score in expected.items() if name != SOLD_OUT), reverse=True)
    assert [item["score"] for item in answer["items"]] == pytest.approx(best[:50], abs=1e-4)
    candidates = [item_id(row) for row in range(0, 300, 11)]
    ranked = running.post("/rank", {"history": session, "candidates": candidates})
    for item in ranked["items"]:
        assert item["score"] == pytest.approx(expected[item["item_id"]], abs=1e-4)


def test_an_event_changes_the_next_answer(running: Running) -> None:
    before = running.post("/recommend", {"user_id": "u1", "k": 3})
    event = {"user_id": "u1", "item_id": item_id(77), "event_type": "purchase"}
    assert running.post("/events", {"events": [event]})["stored"] == 1
    after = running.post("/recommend", {"user_id": "u1", "k": 3})
    assert (before["basis"], after["basis"]) == ("popularity", "personal")
    assert before["items"] != after["items"]


def test_grpc_answers_as_http_does(running: Running) -> None:
    """Through HAProxy, which sends calls to the replicas' own ports for gRPC."""
    address = f"127.0.0.1:{running.ports[3]}"
    assert running.printed["gRPC"] == address
    key = [("authorization", f"Bearer {running.key}")]
    with grpc.insecure_channel(address) as channel:
        stub = RankingStub(channel)
        user = pb.RecommendRequest(user_id="by-rpc", k=3)
        before, call = stub.Recommend.with_call(user, metadata=[*key, ("x-request-id", "by-rpc")])
        assert before.request_id == dict(call.trailing_metadata())["x-request-id"] == "by-rpc"
        event = {"user_id": "by-rpc", "item_id": item_id(77), "event_type": "purchase"}
        assert stub.Events(pb.EventsRequest(events=[event]), metadata=key).stored == 1
        after = running.post("/recommend", {"user_id": "by-rpc", "k": 3})
        assert (before.basis, after["basis"]) == ("popularity", "personal")
        assert [item.item_id for item in before.items] != [i["item_id"] for i in after["items"]]
        candidates = [{"item_id": item_id(1)}, {"new_item": {"title": "red cup"}}]
        ranked = stub.Rank(pb.RankRequest(user_id="u", candidates=candidates), metadata=key)
        assert {item.candidate for item in ranked.items} == {0, 1}
        gone = pb.RankRequest(user_id="u", candidates=[{"item_id": "gone"}, candidates[0]])
        assert stub.Rank(gone, metadata=key).unknown_items == ["gone"]

        with pytest.raises(grpc.RpcError) as refused:
            stub.Rank(pb.RankRequest(user_id="u", candidates=[{"item_id": "a\n"}]), metadata=key)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert refused.value.details().startswith("candidates[0]")
        assert "grpc-status-details-bin" in dict(refused.value.trailing_metadata())
        with pytest.raises(grpc.RpcError) as closed:
            stub.Recommend(user)
        assert closed.value.code() is grpc.StatusCode.UNAUTHENTICATED
    line = running.logged("by-rpc")
    assert (line["path"], line["status"]) == ("/raycommend.v1.Ranking/Recommend", 200)


def test_a_session_with_filters(running: Running) -> None:
    body = {"history": [{"item_id": item_id(4)}], "k": 3, "filters": {"category": ["cup"]}}
    answer = running.post("/recommend", body)
    assert answer["basis"] == "session"
    assert all(" cup " in item["title"] for item in answer["items"])


def test_a_new_item_is_ranked_by_its_text(running: Running) -> None:
    candidates = [item_id(1), {"title": "red cup", "item_id": "mine"}, {"title": "blue pen"}]
    answer = running.post("/rank", {"user_id": "nobody", "candidates": candidates})
    scores = {item["candidate"]: item["score"] for item in answer["items"]}
    assert len(set(scores.values())) == 3


def test_the_next_answer_knows_of_an_event_soon(running: Running) -> None:
    """From sending an event to having the answer that knows of it, of 100 new users."""
    seconds = []
    with httpx.Client(base_url=running.url, headers=running.headers, timeout=30) as client:
        for number in range(100):
            user, began = f"newcomer-{number}", time.monotonic()
            event = {"user_id": user, "item_id": item_id(number), "event_type": "view"}
            assert client.post("/events", json=event).json()["stored"] == 1
            answer = client.post("/recommend", json={"user_id": user, "k": 3}).json()
            seconds.append(time.monotonic() - began)
            assert answer["basis"] == "personal"
    assert sorted(seconds)[98] < 1


def test_an_added_item_is_soon_in_the_answers_of_every_replica(
    running: Running, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"user_id": "nobody", "filters": {"category": ["tent"]}}

    def everywhere(expected: list[str], patience_s: float) -> bool:
        """Whether all replicas answer so, asked past the proxy."""
        deadline, urls = time.monotonic() + patience_s, running.addresses()
        assert len(urls) == 2
        while time.monotonic() < deadline:
            answers = [
                httpx.post(f"http://{url}/recommend", json=body, headers=running.headers).json()
                for url in urls
            ]
            if all([item["item_id"] for item in a["items"]] == expected for a in answers):
                return True
            time.sleep(0.05)
        return False

    item = {"item_id": "new-lamp", "title": "green lamp", "category": "tent", "price": 9}
    assert running.post("/items", item)["stored"] == 1
    assert everywhere(["new-lamp"], 20)  # 2 s where nothing else runs

    # A service that starts on the same folder has it too.
    monkeypatch.setenv("RAYCOMMEND_PSEUDONYM_KEY", running.environment["RAYCOMMEND_PSEUDONYM_KEY"])
    again = make_service(
        load_recipe(Path(running.command[running.command.index("--config") + 1]), [])
    )
    asyncio.run(again.load(bundle, version_in(bundle)))
    assert again.describe()["num_added"] == 1

    gone = httpx.delete(f"{running.url}/items/new-lamp", headers=running.headers)
    assert gone.json()["removed"] is True
    assert everywhere([], 20)


@pytest.mark.parametrize(
    ("path", "body", "status", "at"),
    [
        ("/recommend", b"{", 400, "body"),
        ("/recommend", b'{"user_id": NaN}', 422, "user_id"),
        ("/recommend", b'{"user_id": "\\ud800"}', 422, "user_id"),
        ("/recommend", b'{"user_id": "u", "k": 1001}', 422, "k"),
        ("/rank", b'{"user_id": "u", "candidates": [""]}', 422, "candidates[0]"),
        ("/rank", b"[" * 100_000, 400, "body"),
        ("/events", b'{"user_id": "u", "item_id": "i", "event_type": "stare"}', 422, "event_type"),
        ("/events", b" " * ((1 << 20) + 1), 413, "body"),
    ],
)
def test_refusals_name_the_field(
    running: Running, path: str, body: bytes, status: int, at: str
) -> None:
    headers = {"content-type": "application/json"} | running.headers
    response = httpx.post(f"{running.url}{path}", content=body, headers=headers)
    assert response.status_code == status
    assert response.json()["detail"][0]["field"] == at


def test_the_limits_hold_past_the_proxy(running: Running) -> None:
    """A replica's own port can be reached; chunks, so that no length is declared."""
    addresses = running.addresses()
    assert all(int(each.rpartition(":")[2]) in range(FIRST, END) for each in addresses)
    url = f"http://{addresses[0]}/recommend"
    chunks = (b" " * 65536 for _ in range(20))
    headers = {"content-type": "application/json"} | running.headers
    assert httpx.post(url, content=chunks, headers=headers).status_code == 413
    for address in (url, f"{running.url}/recommend"):
        assert httpx.post(address, json={"user_id": "u"}).status_code == 401
    assert running.key not in running.log.read_text()


def test_a_request_is_followed_by_its_id(running: Running) -> None:
    for sent in ({}, {"X-Request-Id": "from-the-shop"}):
        answer = httpx.post(
            f"{running.url}/recommend", json={"user_id": "alice"}, headers=running.headers | sent
        )
        (header,) = answer.headers.get_list("x-request-id")
        assert answer.json()["request_id"] == header
    assert header == "from-the-shop"
    line = running.logged(header)
    assert (line["path"], line["status"], line["num_items"]) == ("/recommend", 200, 10)
    assert line["model_version"] == answer.json()["model_version"]
    assert line["deployment"] == "raycommend_Ranking"
    assert "alice" not in str(running.log_lines())


def test_a_user_is_erased_while_the_service_runs(running: Running) -> None:
    event = {"user_id": "leaves/us", "item_id": item_id(77), "event_type": "purchase"}
    running.post("/events", event)
    path = f"{running.url}/users/leaves%2Fus"
    assert httpx.delete(path).status_code == 401
    answer = httpx.delete(path, headers=running.headers)
    assert answer.status_code == 200 and answer.json()["erased"] == 1
    assert running.post("/recommend", {"user_id": "leaves/us"})["basis"] == "popularity"
