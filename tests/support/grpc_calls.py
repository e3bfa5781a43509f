"""A gRPC server in this process, and what its messages and errors say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from fastapi.testclient import TestClient
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import status_pb2

from serve.core.service import Service
from serve.grpc.servicer import DETAILS, METHODS, Rpc
from serve.protos.server import add_to_server

Code = grpc.StatusCode
Call = Callable[..., Any]


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
