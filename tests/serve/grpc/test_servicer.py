"""gRPC in this process: the same answers as over HTTP, the same refusals, keys, figures."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import grpc
import pytest
from bundles import SOLD_OUT, item_id, make_recipe, version_in
from fastapi.testclient import TestClient
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monitoring import Tally
from services import Clock, make_service

from recsys.errors import DataError
from recsys.recommender import Recommender
from serve.access.key_file import KeyFile
from serve.core.middleware import CLIENT_LEFT
from serve.core.service import Service
from serve.grpc.messages import events_fields, rank_fields, recommend_fields
from serve.grpc.servicer import DETAILS, METHODS, Rpc
from serve.http.body_limit import MAX_BODY_BYTES
from serve.http.routes import build_http
from serve.protos import ranking_pb2 as pb
from serve.protos.ranking_pb2_grpc import RankingStub
from serve.protos.server import SERVICE, add_to_server
from serve.schemas import requests, responses
from serve.schemas.callers import RIGHTS
from serve.schemas.responses import EventsAnswer, RankAnswer, RecommendAnswer
from serve.stores.users import Users

ROOT = Path(__file__).parents[3]
Code = grpc.StatusCode
Call = Callable[..., Any]
PATHS = {"Recommend": "/recommend", "Rank": "/rank", "Events": "/events"}


async def start(service: Service) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server()
    add_to_server(Rpc(service), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


def channel_to(client: TestClient, service: Service) -> Iterator[grpc.Channel]:
    """To a server beside the HTTP application, in its event loop, for the same service."""
    assert client.portal is not None
    server, port = client.portal.call(start, service)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    client.portal.call(server.stop, None)


@pytest.fixture
def channel(client: TestClient, service: Service) -> Iterator[grpc.Channel]:
    yield from channel_to(client, service)


@pytest.fixture
def stub(channel: grpc.Channel) -> RankingStub:
    return RankingStub(channel)


def message_of(name: str, body: dict[str, Any]) -> Message:
    """The request that says what a JSON body says."""
    body = json.loads(json.dumps(body))
    if "history" in body:
        body["history"] = {"events": body["history"]}
    if "candidates" in body:
        body["candidates"] = [
            {"item_id": each} if isinstance(each, str) else {"new_item": each}
            for each in body["candidates"]
        ]
    if name == "Events" and "events" not in body:
        body = {"events": [body]}
    return json_format.ParseDict(body, METHODS[name].request())


def fields_of(answer: Message) -> dict[str, Any]:
    """Everything but the request's id, as JSON has it."""
    found = json_format.MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    del found["request_id"]
    return found


def error_of(error: grpc.RpcError) -> status_pb2.Status:
    """The details as `grpc_status.rpc_status.from_call` reads them."""
    metadata = dict(error.trailing_metadata())
    return status_pb2.Status.FromString(metadata.get(DETAILS, b""))


def refusal(call: Call, request: Message, **options: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, **options)
    return caught.value


class TestProtocol:
    """The two surfaces cannot drift apart."""

    @pytest.mark.parametrize(
        ("message", "model"),
        [
            (pb.SessionEvent, requests.SessionEvent),
            (pb.Filters, requests.Filters),
            (pb.RecommendRequest, requests.RecommendRequest),
            (pb.NewItem, requests.NewItem),
            (pb.RankRequest, requests.RankRequest),
            (pb.Event, requests.Event),
            (pb.EventsRequest, requests.Events),
            (pb.Reason, responses.Reason),
            (pb.Parts, responses.Parts),
            (pb.Explanation, responses.Explanation),
            (pb.ScoredItem, responses.ScoredItem),
            (pb.RankedCandidate, responses.RankedCandidate),
            (pb.RecommendAnswer, RecommendAnswer),
            (pb.RankAnswer, RankAnswer),
            (pb.EventsAnswer, EventsAnswer),
        ],
    )  # fmt: skip
    def test_fields_have_the_same_names(self, message: type[Message], model: Any) -> None:
        assert {field.name for field in message.DESCRIPTOR.fields} == model.model_fields.keys()
        for field in message.DESCRIPTOR.fields:
            if not field.is_repeated and field.message_type is None:
                # What JSON must have is always there; what it may leave out can be told from ''.
                needed = model.model_fields[field.name].is_required() or field.name == "explain"
                nullable = "None" in str(model.model_fields[field.name].annotation)
                assert field.has_presence is (not needed or nullable), field.full_name

    def test_every_method_has_its_messages(self) -> None:
        methods = pb.DESCRIPTOR.services_by_name["Ranking"].methods_by_name
        assert set(methods) == METHODS.keys()
        for name, method in METHODS.items():
            assert methods[name].input_type is method.request.DESCRIPTOR
            assert methods[name].output_type is method.answer.DESCRIPTOR

    def test_proxies_need_not_import_the_model(self) -> None:
        code = "import sys; from serve.protos import server; print(*sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert not {"torch", "numpy", "ray", "starlette", "recsys"} & set(done.stdout.split())

    def test_the_generated_code_is_that_of_the_protocol(self, tmp_path: Path) -> None:
        pytest.importorskip("grpc_tools")
        out = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *out]
        subprocess.run([*command, "serve/protos/ranking.proto"], cwd=ROOT, check=True)
        made = sorted((tmp_path / "serve" / "protos").iterdir())
        assert len(made) == 3
        for path in made:
            committed = ROOT / "serve" / "protos" / path.name
            assert path.read_text() == committed.read_text(), "make protos"


class TestParity:
    """What HTTP answers, bit for bit."""

    SESSION = [
        {"item_id": item_id(4), "event_type": "purchase"},
        {"item_id": item_id(9)},
        {"item_id": "gone"},
    ]
    TIMED = [
        {"item_id": item_id(4), "timestamp": "2026-01-01T10:00:00Z"},
        {"item_id": item_id(40), "event_type": "buy", "timestamp": "2026-01-01T12:00:00.5+01:00"},
    ]
    KNOWN = {"user_id": "known"}

    @pytest.fixture(autouse=True)
    def _clock(self, client: TestClient, clock: Clock) -> None:
        event = {"user_id": "known", "item_id": item_id(7), "event_type": "buy"}
        assert client.post("/events", json=event).status_code == 200
        clock.now = 1_900_000_000_000_000

    @pytest.mark.parametrize(
        ("name", "body"),
        [
            ("Recommend", KNOWN),
            ("Recommend", {"user_id": "nobody", "k": 50}),
            ("Recommend", {"history": []}),
            ("Recommend", {"history": SESSION, "k": 7, "explain": True}),
            ("Recommend", {"history": TIMED, "exclude": [item_id(1), "gone"]}),
            ("Recommend", KNOWN | {"diversity": 0.4, "max_per_category": 1, "exclude_owned": True}),
            ("Recommend", KNOWN | {"diversity": 0.0, "exclude_owned": False, "exclude": []}),
            ("Recommend", KNOWN | {"filters": {"category": ["cup", "pen"], "max_price": 90.5}}),
            ("Recommend", KNOWN | {"filters": {"brand": ["acme"], "min_price": 0.0}, "k": 3}),
            ("Recommend", KNOWN | {"filters": {}}),
            ("Rank", KNOWN | {"candidates": [item_id(row) for row in (3, 1, 2, 3, 299)]}),
            ("Rank", {"history": SESSION, "k": 2,"candidates": [item_id(1), SOLD_OUT, item_id(5)]}),
            (
                "Rank",
                KNOWN
                | {
                    "explain": True,
                    "candidates": [
                        {"title": "red cup", "brand": "acme", "price": 0.0},
                        item_id(8),
                        {"title": "blue pen", "item_id": "mine", "description": "new", "tags": ""},
                    ],
                },
            ),
        ],
    )  # fmt: skip
    def test_answers(
        self, client: TestClient, stub: RankingStub, name: str, body: dict[str, Any]
    ) -> None:
        response = client.post(PATHS[name], json=body)
        assert response.status_code == 200, response.text
        expected = response.json()
        del expected["request_id"]
        for item in expected["items"]:
            if item["item_id"] is None:
                del item["item_id"]
        found = fields_of(getattr(stub, name)(message_of(name, body)))
        assert found == expected
        assert found["items"]

    def test_events(self, client: TestClient, stub: RankingStub) -> None:
        events = [
            {"user_id": "new", "item_id": item_id(3), "event_type": "view", "event_id": "one"},
            {"user_id": "new", "item_id": "gone", "event_type": "buy"},
            {"user_id": "new", "item_id": item_id(3), "event_type": "ping"},
        ]
        answer = stub.Events(message_of("Events", {"events": events}))
        assert fields_of(answer) == {
            "received": 3, "stored": 2, "ignored": 1, "unknown_items": ["gone"], "repeated": [],
            "conflicts": [], "older_than_erasure": [],
        }  # fmt: skip
        again = client.post("/events", json=events[0]).json()
        assert again["stored"] == 0, "the same event"
        assert client.post("/recommend", json={"user_id": "new"}).json()["basis"] == "personal"

    @pytest.mark.parametrize(
        ("name", "body"),
        [
            ("Recommend", {}),
            ("Recommend", {"user_id": ""}),
            ("Recommend", {"user_id": "u", "k": 0}),
            ("Recommend", {"user_id": "u", "k": 51}),
            ("Recommend", {"user_id": "u", "diversity": 1.5}),
            ("Recommend", {"user_id": "u", "exclude": ["", "a\u0000"]}),
            ("Recommend", {"user_id": "u", "filters": {"min_price": 2.0, "max_price": 1.0}}),
            ("Recommend", {"history": [{"item_id": "a"}, {"item_id": "b", "event_type": "stare"}]}),
            ("Recommend", {"history": [{"item_id": "a", "timestamp": "2026-01-01"}]}),
            ("Recommend", {"history": [{"item_id": "a", "timestamp": "2999-01-01T00:00:00Z"}]}),
            ("Recommend", {"history": [{"item_id": "a"}] * 2001}),
            ("Rank", {"user_id": "u", "candidates": []}),
            ("Rank", {"user_id": "u", "candidates": [item_id(1)], "k": 41}),
            ("Rank", {"user_id": "u", "candidates": [""]}),
            ("Rank", {"user_id": "u", "candidates": [item_id(1)] * 41}),
            ("Rank", {"user_id": "u", "candidates": [{"title": " "}]}),
            ("Rank", {"user_id": "u", "candidates": [{"title": "red cup", "price": -1.0}]}),
            ("Rank", {"user_id": "u", "candidates": [{"title": "?", "item_id": "x"}]}),
            ("Events", {"events": []}),
            ("Events", {"events": [{"user_id": "u", "item_id": "i", "event_type": "stare"}]}),
            (
                "Events",
                {
                    "events": [
                        {"user_id": "u", "item_id": "", "event_type": "view", "event_id": "seed:1"}
                    ]
                },
            ),
        ],
    )
    def test_refusals(
        self, client: TestClient, stub: RankingStub, name: str, body: dict[str, Any]
    ) -> None:
        response = client.post(PATHS[name], json=body)
        found = getattr(stub, name)
        if response.status_code == 200:  # a text of unknown words is a text
            assert found(message_of(name, body)).items
            return
        assert response.status_code == 422
        expected = response.json()["detail"]
        error = refusal(found, message_of(name, body))
        assert error.code() is Code.INVALID_ARGUMENT
        first = expected[0]
        prefix = f"{first['field']}: " if first["field"] != "body" else ""
        assert error.details() == prefix + first["msg"]
        told = error_of(error)
        assert (told.code, told.message) == (3, error.details())
        (packed,) = told.details
        violations = error_details_pb2.BadRequest()
        assert packed.Unpack(violations)
        assert [
            {"field": each.field, "msg": each.description, "type": each.reason.lower()}
            for each in violations.field_violations
        ] == [{key: each[key] for key in ("field", "msg", "type")} for each in expected]


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
        error = refusal(stub.Events, pb.EventsRequest(events=events))
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


#: Random requests of each kind; `make fuzz` makes more.
NUM_RANDOM = int(os.environ.get("RAYCOMMEND_FUZZ_CASES", "60"))
IDS = st.sampled_from([item_id(0), item_id(7), SOLD_OUT, "gone", ""]) | st.text(max_size=5)
KINDS = st.sampled_from(["view", "buy", "ping", "stare", ""])
TIMES = st.sampled_from(["2026-01-01T00:00:00Z", "1969-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
TIMES |= st.text(max_size=25)
NUMBERS = st.floats() | st.sampled_from([0.0, 1.0, -0.0, 1e308])
WHOLE = st.integers(-(2**31), 2**31 - 1) | st.integers(1, 60)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


SESSION = st.lists(some(item_id=IDS, event_type=KINDS, timestamp=TIMES), max_size=4)
ASKER = st.one_of(
    some(user_id=IDS), st.builds(lambda events: {"history": {"events": events}}, SESSION)
)
NEW = some(
    title=IDS, description=IDS, brand=IDS, category=IDS, tags=IDS, price=NUMBERS, item_id=IDS
)
FILTERS = some(
    category=st.lists(IDS, max_size=2), brand=st.lists(IDS, max_size=2),
    min_price=NUMBERS, max_price=NUMBERS,
)  # fmt: skip
BODIES = {
    "Recommend": st.tuples(
        ASKER,
        some(
            k=WHOLE, explain=st.booleans(), exclude=st.lists(IDS, max_size=3), filters=FILTERS,
            diversity=NUMBERS, max_per_category=WHOLE, exclude_owned=st.booleans(),
        ),
    ),
    "Rank": st.tuples(
        ASKER,
        some(
            k=WHOLE, explain=st.booleans(),
            candidates=st.lists(st.one_of(some(item_id=IDS), some(new_item=NEW)), max_size=6),
        ),
    ),
    "Events": st.tuples(
        st.builds(
            lambda events: {"events": events},
            st.lists(
                some(user_id=IDS, item_id=IDS, event_type=KINDS, timestamp=TIMES, event_id=IDS),
                max_size=3,
            ),
        ),
    ),
}  # fmt: skip


class TestFuzz:
    """Whatever comes is answered or refused; nothing fails."""

    FINE = {Code.OK, Code.INVALID_ARGUMENT}

    @pytest.fixture
    def ask(self, channel: grpc.Channel) -> Callable[[str, bytes], Code]:
        calls = {name: channel.unary_unary(f"/{SERVICE}/{name}") for name in METHODS}

        def asked(name: str, body: bytes) -> Code:
            try:
                METHODS[name].answer.FromString(calls[name](body))
            except grpc.RpcError as error:
                return error.code()
            return Code.OK

        return asked

    @pytest.mark.parametrize("name", METHODS)
    def test_random_bytes(self, ask: Callable[[str, bytes], Code], name: str) -> None:
        @settings(
            max_examples=NUM_RANDOM, deadline=None,
            suppress_health_check=list(HealthCheck), derandomize=True,
        )  # fmt: skip
        @given(st.binary(max_size=200))
        def check(body: bytes) -> None:
            assert ask(name, body) in self.FINE

        check()

    @pytest.mark.parametrize("name", METHODS)
    def test_random_requests(self, ask: Callable[[str, bytes], Code], name: str) -> None:
        seen: set[Code] = set()

        @settings(
            max_examples=NUM_RANDOM, deadline=None,
            suppress_health_check=list(HealthCheck), derandomize=True,
        )  # fmt: skip
        @given(BODIES[name])
        def check(parts: tuple[dict[str, Any], ...]) -> None:
            body = {key: value for part in parts for key, value in part.items()}
            seen.add(ask(name, METHODS[name].request(**body).SerializeToString()))
            assert seen <= self.FINE

        check()
        assert Code.INVALID_ARGUMENT in seen


def test_fields_that_were_not_given_are_not_there() -> None:
    assert recommend_fields(pb.RecommendRequest()) == {"explain": False}
    assert rank_fields(pb.RankRequest(history={})) == {
        "explain": False, "history": [], "candidates": [],
    }  # fmt: skip
    assert events_fields(pb.EventsRequest(events=[{"timestamp": ""}])) == {
        "events": [{"user_id": "", "item_id": "", "event_type": "", "timestamp": ""}]
    }
