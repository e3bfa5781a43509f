"""gRPC in this process: errors, keys, ids, figures, and the documented client."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import grpc
import pytest
from bundles import item_id, make_recipe, version_in
from fastapi.testclient import TestClient
from google.rpc import error_details_pb2
from grpc_calls import Code, channel_to, error_of, refusal, start
from monitoring import Tally
from services import make_service

from recsys.errors import DataError
from recsys.recommender import Recommender
from serve.access.key_file import KeyFile
from serve.core.middleware import CLIENT_LEFT
from serve.core.service import Service
from serve.grpc.servicer import METHODS
from serve.http.body_limit import MAX_BODY_BYTES
from serve.http.routes import build_http
from serve.protos import ranking_pb2 as pb
from serve.protos.ranking_pb2_grpc import RankingStub
from serve.protos.server import SERVICE
from serve.schemas.callers import RIGHTS
from serve.stores.users import Users

ROOT = Path(__file__).parents[3]


class TestErrors:
    REQUEST = pb.RecommendRequest(user_id="alice@example.com")

    def test_what_is_no_message_is_named(self, channel: grpc.Channel) -> None:
        for name in METHODS:
            raw = channel.unary_unary(f"/{SERVICE}/{name}")
            for body in (b"\xff", b"\x0a\x02\xff\xff", b"\x0b" * 200):
                error = refusal(raw, body)
                assert error.code() is Code.INVALID_ARGUMENT, body
                assert error.details() == f"cannot be read as {METHODS[name].request.__name__}"

    def test_a_large_request_is_refused_before_it_is_read(self, channel: grpc.Channel) -> None:
        raw = channel.unary_unary(f"/{SERVICE}/Recommend")
        error = refusal(raw, b"\xff" * (MAX_BODY_BYTES + 1))
        assert error.code() is Code.INVALID_ARGUMENT
        assert error.details() == f"larger than {MAX_BODY_BYTES} bytes"

    def test_many_mistakes_fit_into_the_metadata(self, stub: RankingStub) -> None:
        names = "x" * 300
        events = [{"user_id": "", "item_id": names, "event_type": names}] * 300
        error = refusal(stub.Events, pb.EventsRequest(events=events, atomic=True))
        assert error.code() is Code.INVALID_ARGUMENT
        assert error.details().startswith("events[0].user_id: ")
        assert len(error_of(error).SerializeToString()) < 6000

    def test_an_unexpected_error_tells_nothing(
        self, stub: RankingStub, metrics: Tally, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object, **__: object) -> None:
            raise KeyError("a secret of ours")

        monkeypatch.setattr(Recommender, "recommend", broken)
        error = refusal(stub.Recommend, self.REQUEST)
        assert (error.code(), error.details()) == (Code.INTERNAL, "the service has failed")
        assert "secret" not in str(error.trailing_metadata())
        assert metrics.counts["requests_total", f"/{SERVICE}/Recommend", "500"] == 1

    def test_what_the_operator_must_mend_is_unavailable(
        self, stub: RankingStub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise DataError("the disk is full", where=Path("/a/path"), fix="make room")

        monkeypatch.setattr(Users, "store", full)
        event = {"user_id": "u", "item_id": item_id(1), "event_type": "view"}
        error = refusal(stub.Events, pb.EventsRequest(events=[event]))
        assert (error.code(), error.details()) == (Code.UNAVAILABLE, "the disk is full")
        (packed,) = error_of(error).details
        retry = error_details_pb2.RetryInfo()
        assert packed.Unpack(retry) and retry.retry_delay.seconds == 1

    def test_without_a_model_it_is_unavailable(self, service: Service) -> None:
        async def run() -> None:
            server, port = await start(service)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await RankingStub(channel).Recommend(self.REQUEST)
            await server.stop(None)
            assert caught.value.code() is Code.UNAVAILABLE

        asyncio.run(run())


def test_the_documented_client_runs(
    channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    page = ROOT / "docs" / "serving" / "grpc.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    monkeypatch.setattr(grpc, "insecure_channel", lambda address: nullcontext(channel))
    exec(example, {})
    assert len(ast.literal_eval(capsys.readouterr().out)) == 5


class TestKeys:
    @pytest.fixture
    def keys(self, tmp_path: Path) -> dict[str, str]:
        file, texts = KeyFile(), {}
        for right in RIGHTS:
            file, texts[right] = file.with_key(right, (right,))
        file.write(tmp_path / "keys.json")
        return texts

    @pytest.fixture
    def stub(
        self, keys: dict[str, str], tmp_path: Path, language_model: Path, bundle: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Iterator[RankingStub]:  # fmt: skip
        monkeypatch.setenv("RAYCOMMEND_PSEUDONYM_KEY", "0123456789abcdef0123456789abcdef")
        access = {"keys": str(tmp_path / "keys.json"), "requests_per_s": 1.5}
        recipe = make_recipe(tmp_path / "run", language_model, serve={"access": access})
        service = make_service(recipe)
        with TestClient(build_http(service)) as client:
            assert client.portal is not None
            client.portal.call(service.load, bundle, version_in(bundle))
            for channel in channel_to(client, service):
                yield RankingStub(channel)

    REQUESTS = {
        "Recommend": ("recommend", pb.RecommendRequest(user_id="u")),
        "Rank": ("recommend", pb.RankRequest(user_id="u", candidates=[{"item_id": item_id(1)}])),
        "Events": (
            "events",
            pb.EventsRequest(
                events=[{"user_id": "u", "item_id": item_id(1), "event_type": "view"}]
            ),
        ),
    }  # fmt: skip

    @pytest.mark.parametrize("name", METHODS)
    def test_each_key_opens_what_it_names(
        self, stub: RankingStub, keys: dict[str, str], name: str
    ) -> None:
        needed, request = self.REQUESTS[name]
        for right, text in keys.items():
            metadata = [("authorization", f"Bearer {text}")]
            if right == needed:
                assert getattr(stub, name)(request, metadata=metadata).request_id
                getattr(stub, name)(request, metadata=[("x-api-key", text)])
            else:
                error = refusal(getattr(stub, name), request, metadata=metadata)
                assert error.code() is Code.PERMISSION_DENIED
                assert f"lacks the right `{needed}`" in error.details()

    @pytest.mark.parametrize("text", [None, "", "Bearer", "Bearer rck_wrong", "rck_wrong"])
    def test_without_a_known_key_nothing_opens(self, stub: RankingStub, text: str | None) -> None:
        metadata = [] if text is None else [("authorization", text)]
        # Not even whether it can be read is told.
        for name, (_, request) in self.REQUESTS.items():
            error = refusal(getattr(stub, name), request, metadata=metadata)
            assert error.code() is Code.UNAUTHENTICATED

    def test_who_asks_too_often_is_told_how_long_to_wait(
        self, stub: RankingStub, keys: dict[str, str]
    ) -> None:
        metadata = [("x-api-key", keys["recommend"])]
        with pytest.raises(grpc.RpcError) as caught:
            for _ in range(20):
                stub.Recommend(pb.RecommendRequest(user_id="u"), metadata=metadata)
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        (packed,) = error_of(caught.value).details
        retry = error_details_pb2.RetryInfo()
        assert packed.Unpack(retry) and retry.retry_delay.seconds == 1


class TestSeen:
    def test_a_request_is_followed_by_its_id(self, stub: RankingStub) -> None:
        request = pb.RecommendRequest(user_id="u")
        answer, call = stub.Recommend.with_call(request, metadata=[("x-request-id", "from-us")])
        assert answer.request_id == dict(call.trailing_metadata())["x-request-id"] == "from-us"
        answer, call = stub.Recommend.with_call(request, metadata=[("x-request-id", "no sane")])
        assert len(answer.request_id) == 32
        error = refusal(stub.Rank, pb.RankRequest(), metadata=[("x-request-id", "wrong")])
        assert dict(error.trailing_metadata())["x-request-id"] == "wrong"

    def test_figures_and_log(
        self, stub: RankingStub, service: Service, metrics: Tally, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "ray.serve")
        service.log_requests = 1.0
        path = f"/{SERVICE}/Recommend"
        stub.Recommend(pb.RecommendRequest(user_id="alice"), metadata=[("x-request-id", "one")])
        refusal(stub.Recommend, pb.RecommendRequest())
        assert metrics.counts["requests_total", path, "200"] == 1
        assert metrics.counts["requests_total", path, "422"] == 1
        assert len(metrics.values["request_seconds", path]) == 2
        stages = {key[1] for key in metrics.values if key[0] == "stage_seconds"}
        assert stages == {"receive", "wait", "history", "score", "answer"}
        line, _ = [each for each in caplog.records if each.message == "request"]
        assert (line.path, line.status, line.request_id, line.num_items) == (path, 200, "one", 5)
        assert "alice" not in str(vars(line))
        assert service.ongoing == 0

    def test_a_client_that_leaves(
        self, stub: RankingStub, service: Service, metrics: Tally, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def slow(*_: object) -> None:
            await asyncio.sleep(60)

        monkeypatch.setattr(service, "recommend", slow)
        error = refusal(stub.Recommend, pb.RecommendRequest(user_id="u"), timeout=0.2)
        assert error.code() is Code.DEADLINE_EXCEEDED
        for _ in range(100):
            if metrics.counts["requests_total", f"/{SERVICE}/Recommend", str(CLIENT_LEFT)]:
                break
            asyncio.run(asyncio.sleep(0.02))
        assert metrics.counts["requests_total", f"/{SERVICE}/Recommend", str(CLIENT_LEFT)] == 1
        assert service.ongoing == 0
