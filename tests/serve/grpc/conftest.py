from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from fastapi.testclient import TestClient
from grpc_calls import channel_to

from serve.core.service import Service
from serve.protos.ranking_pb2_grpc import RankingStub


@pytest.fixture
def channel(client: TestClient, service: Service) -> Iterator[grpc.Channel]:
    yield from channel_to(client, service)


@pytest.fixture
def stub(channel: grpc.Channel) -> RankingStub:
    return RankingStub(channel)
