"""What is seen of a request from outside: its id, its figures, its line in the log; and health."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from bundles import item_id, version_in
from fastapi.testclient import TestClient
from monitoring import Tally
from services import break_arm

from recsys.config import Recipe
from recsys.errors import DataError
from serve.core.middleware import CLIENT_LEFT, NONE, SLOW_S, ObservabilityMiddleware
from serve.core.service import Service
from serve.http.routes import build_http
from serve.observability.metrics import METRICS
from serve.observability.trace import Trace, begin_trace, current, current_id
from serve.settings import Settings
from serve.stores.users import Users

USER = {"user_id": "alice@example.com"}
STAGES = {"receive", "wait", "history", "score", "answer"}


class TestIds:
    @pytest.mark.parametrize("sent", ["a", "A-1_b.c", "x" * 64])
    def test_a_sane_id_is_taken(self, client: TestClient, sent: str) -> None:
        answer = client.post("/recommend", json=USER, headers={"X-Request-Id": sent})
        assert answer.json()["request_id"] == answer.headers["x-request-id"] == sent

    @pytest.mark.parametrize("sent", ["", "x" * 65, "a b", 'a"b', "a\u00e9".encode("latin-1")])
    def test_another_is_replaced(self, client: TestClient, sent: str | bytes) -> None:
        answer = client.post("/recommend", json=USER, headers={"X-Request-Id": sent})
        made = answer.headers["x-request-id"]
        assert answer.json()["request_id"] == made
        assert made != sent and len(made) == 32

    def test_every_answer_has_one_of_its_own(self, client: TestClient) -> None:
        event = {"user_id": "u", "item_id": item_id(1), "event_type": "view"}
        bodies = {"/recommend": USER, "/rank": USER | {"candidates": []}, "/events": event}
        made = {
            client.post(path, json=body).headers["x-request-id"] for path, body in bodies.items()
        }
        made |= {client.get(path).headers["x-request-id"] for path in ("/healthz", "/nowhere")}
        assert len(made) == 5

    def test_who_answers_ids_by_itself_is_not_doubled(self, service: Service) -> None:
        with TestClient(build_http(service, answers_id=False)) as client:
            assert "x-request-id" not in client.get("/healthz").headers

    def test_outside_of_a_request_ids_differ(self) -> None:
        assert current_id() != current_id()


class TestFigures:
    def test_an_answer(self, client: TestClient, metrics: Tally) -> None:
        client.post("/recommend", json=USER)
        client.post("/recommend", json={"history": [{"item_id": item_id(3)}], "explain": True})
        counts, values = metrics.counts, metrics.values
        assert counts["requests_total", "/recommend", "200"] == 2
        for basis in ("popularity", "session"):
            assert counts["answers_total", basis, "default", NONE] == 1
        took = values["request_seconds", "/recommend"]
        stages = {key[1]: found for key, found in values.items() if key[0] == "stage_seconds"}
        assert set(stages) == {*STAGES, "explain"}
        # The stages part the time between them, but for sending the answer.
        assert 0 < sum(map(sum, stages.values())) < sum(took)
        assert len(stages["explain"]) == 1

    def test_texts_and_events(self, client: TestClient, metrics: Tally) -> None:
        candidates = [{"title": "red cup"}, {"title": "blue pen"}, item_id(1)]
        client.post("/rank", json=USER | {"candidates": candidates})
        event = {"user_id": "u", "item_id": item_id(1), "event_type": "view"}
        client.post("/events", json=event)
        assert metrics.values["text_batch_items",] == [2]
        assert metrics.counts["text_models_total", "miss"] == 1  # when the bundle was tried
        assert metrics.counts["text_models_total", "hit"] == 1
        assert metrics.values["stage_seconds", "text"] and metrics.values["stage_seconds", "store"]

    def test_refusals_and_strange_paths(self, client: TestClient, metrics: Tally) -> None:
        client.post("/recommend", json={})
        client.get("/alice@example.com")
        assert metrics.counts["requests_total", "/recommend", "422"] == 1
        assert metrics.counts["requests_total", "other", "404"] == 1
        assert not any(key[0] == "answers_total" for key in metrics.counts)

    def test_an_error_nobody_expected(
        self, client: TestClient, service: Service, metrics: Tally
    ) -> None:
        break_arm(service)
        assert client.post("/recommend", json=USER).status_code == 500
        assert metrics.counts["requests_total", "/recommend", "500"] == 1

    def test_a_client_that_leaves(self, service: Service, metrics: Tally) -> None:
        async def slow(*_: object) -> None:
            assert service.ongoing == 1
            await asyncio.sleep(60)

        async def run() -> None:
            scope = {"type": "http", "path": "/rank", "headers": []}
            app = ObservabilityMiddleware(slow, service, answers_id=True)
            task = asyncio.create_task(app(scope, None, None))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(run())
        assert metrics.counts["requests_total", "/rank", str(CLIENT_LEFT)] == 1
        assert service.ongoing == 0

    def test_gauges(
        self, service: Service, client: TestClient, metrics: Tally, bundle: Path, tmp_path: Path
    ) -> None:
        service.report()
        started = metrics.gauges["last_write_timestamp_seconds",]
        assert metrics.gauges["model_info", version_in(bundle)] == 1
        assert metrics.gauges["ongoing_requests",] == metrics.gauges["failed_update",] == 0
        event = {"event_id": "e", "user_id": "u", "item_id": item_id(1), "event_type": "view"}
        client.post("/events", json=event)
        service.report()
        written = metrics.gauges["last_write_timestamp_seconds",]
        assert written > started
        client.post("/events", json=event)  # held already: no news
        asyncio.run(service.load(tmp_path / "missing", "none"))
        service.report()
        assert metrics.gauges["last_write_timestamp_seconds",] == written
        assert metrics.gauges["failed_update",] == 1

    def test_stages_are_those_that_are_described(self, client: TestClient, metrics: Tally) -> None:
        body = USER | {"candidates": [{"title": "red cup"}], "explain": True}
        client.post("/rank", json=body)
        client.post("/events", json={"user_id": "u", "item_id": "i", "event_type": "view"})
        seen = {key[1] for key in metrics.values if key[0] == "stage_seconds"}
        text = METRICS["stage_seconds"].description
        assert seen == STAGES | {"text", "explain", "store"}
        assert all(f"{stage}:" in text for stage in seen)


class TestLog:
    @pytest.fixture(autouse=True)
    def _capture(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "ray.serve")

    @staticmethod
    def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
        return [vars(each) for each in caplog.records if each.getMessage() == "request"]

    def test_a_line_tells_the_request(
        self, client: TestClient, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        service.log_requests = 1.0
        answer = client.post("/recommend", json=USER, headers={"X-Request-Id": "mine"}).json()
        (line,) = self.lines(caplog)
        assert (line["request_id"], line["path"], line["status"]) == ("mine", "/recommend", 200)
        assert (line["basis"], line["num_items"]) == ("popularity", 5)
        assert line["model_version"] == answer["model_version"]
        assert line["milliseconds"] > 0 and set(line["stages"]) == STAGES
        assert "alice" not in str(line)

    def test_no_part_of_a_path_that_is_none_of_ours(
        self, client: TestClient, service: Service, caplog: pytest.LogCaptureFixture
    ) -> None:
        service.log_requests = 1.0
        client.get("/users/alice@example.com?name=alice")
        (line,) = self.lines(caplog)
        assert line["path"] == "/users/" and "alice" not in str(line)
        client.get("/alice")
        assert self.lines(caplog)[-1]["path"] == "other"

    def test_the_share_is_the_recipe_s(
        self, client: TestClient, service: Service, recipe: Recipe,
        caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        assert service.log_requests == Settings.of(recipe).serve.log_requests == 0.01
        draws = iter([0.5, 0.02, 0.009])
        monkeypatch.setattr("random.random", lambda: next(draws))
        for _ in range(3):
            client.get("/healthz")
        assert len(self.lines(caplog)) == 1

    def test_failures_and_slow_ones_always(
        self, client: TestClient, service: Service,
        caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        service.log_requests = 0.0
        client.post("/recommend", json={})
        assert self.lines(caplog) == []
        monkeypatch.setattr(Trace, "elapsed", lambda _: SLOW_S + 0.1)
        client.get("/healthz")
        monkeypatch.undo()
        break_arm(service)
        client.post("/recommend", json=USER)
        slow, failed = self.lines(caplog)
        assert (slow["levelname"], slow["path"]) == ("WARNING", "/healthz")
        assert (failed["levelname"], failed["status"]) == ("ERROR", 500)


class TestHealth:
    def test_without_a_model_it_lives_and_is_not_ready(self, service: Service) -> None:
        with TestClient(build_http(service)) as client:
            assert client.get("/healthz").json() == {"status": "ok"}
            answer = client.get("/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "no model" in answer.json()["detail"][0]["msg"]

    def test_without_its_store_it_lives_and_is_not_ready(
        self, client: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gone(_: Users) -> None:
            raise DataError("the store cannot be read", where="here", field="x", fix="fix it")

        assert client.get("/readyz").status_code == 200
        monkeypatch.setattr(Users, "ping", gone)
        assert client.get("/healthz").status_code == 200
        answer = client.get("/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_laps_part_the_time() -> None:
    trace = begin_trace(None)
    trace.record_stage("receive")
    trace.record_stage("score")
    trace.record_stage("receive")
    assert set(trace.seconds) == {"receive", "score"}
    assert sum(trace.seconds.values()) <= trace.elapsed()
    assert current() is trace
