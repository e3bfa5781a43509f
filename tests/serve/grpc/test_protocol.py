"""HTTP and gRPC cannot drift apart, and the generated code is that of the protocol."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from serve.grpc.servicer import METHODS
from serve.protos import ranking_pb2 as pb
from serve.schemas import events, requests, responses
from serve.schemas.responses import EventsAnswer, RankAnswer, RecommendAnswer

ROOT = Path(__file__).parents[3]


class TestProtocol:
    @pytest.mark.parametrize(
        ("message", "model"),
        [
            (pb.SessionEvent, requests.SessionEvent),
            (pb.Filters, requests.Filters),
            (pb.RecommendRequest, requests.RecommendRequest),
            (pb.NewItem, requests.NewItem),
            (pb.RankRequest, requests.RankRequest),
            (pb.Event, events.Event),
            (pb.EventsRequest, events.Events),
            (pb.EventResult, responses.EventResult),
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
                needed = model.model_fields[field.name].is_required()
                needed = needed or field.name in ("explain", "atomic")
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
