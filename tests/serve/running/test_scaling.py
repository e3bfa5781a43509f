"""Replicas come, go, are killed and are replaced; too much is refused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from load import Load
from running_service import NUM_QUEUED, Running

from benchmarks.serving.clients import Clients, percentile_ms
from serve.protos import ranking_pb2 as pb
from serve.protos.ranking_pb2_grpc import RankingStub

pytestmark = [pytest.mark.serve, pytest.mark.ray]

#: Seconds that a change of the load may take to be followed, on a machine that is busy otherwise.
FOLLOWS_S = 90


@pytest.mark.chaos
def test_more_and_fewer_replicas_cost_no_answer(running: Running, bundle: Path) -> None:
    running.configure(bundle)
    before = running.answering()
    texts = [{"title": f"a cup of colour {n}"} for n in range(256)]
    with Load(running) as load, Load(running, path="/rank", candidates=texts) as long:
        running.scale(3, bundle)
        assert before <= running.answering(), "scaling restarts nobody"
        running.scale(2, bundle)
        while len(running.answering()) > 2:  # the third answers what it has
            time.sleep(0.2)
        load.wait_for(20)
        long.wait_for(20)
    assert (load.refused, load.broken, long.refused, long.broken) == ([], [], [], [])


@pytest.mark.chaos
def test_a_replica_that_is_killed_takes_no_answer_along(running: Running, bundle: Path) -> None:
    """Of two; the proxy asks the other again, unless half an answer was sent already."""
    running.scale(2, bundle)
    key, broken, killed = [("authorization", f"Bearer {running.key}")], [], threading.Event()

    def call() -> None:
        """Over gRPC, until 50 calls were answered after the kill."""
        num = 0
        while num < 50 and len(broken) < 2:
            try:
                assert stub.Recommend(pb.RecommendRequest(user_id="u"), metadata=key).items
                num += killed.is_set()
            except grpc.RpcError as error:
                broken.append(str(error))

    with (
        grpc.insecure_channel(f"127.0.0.1:{running.ports[3]}") as channel,
        ThreadPoolExecutor(2) as callers,
        Load(running, num_clients=4) as load,
    ):
        stub = RankingStub(channel)
        called = [callers.submit(call) for _ in range(2)]
        time.sleep(1)
        os.kill(min(running.answering()), signal.SIGKILL)
        killed.set()
        load.wait_for(100)
        for each in called:
            each.result(timeout=60)
    assert load.refused == []
    assert len(load.broken) <= 1, load.broken
    assert len(broken) <= 1, broken


def test_replicas_follow_the_load_and_no_request_fails(running: Running, bundle: Path) -> None:
    bounds = {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 2}
    delays = {"upscale_delay_s": 0, "downscale_delay_s": 2}
    settings = [f"serve.autoscaling.{key}={value}" for key, value in (bounds | delays).items()]
    running.scale(2, bundle)
    with Load(running, num_clients=1) as little:
        running.configure(bundle, *settings)
        running.wait_for_replicas(1, FOLLOWS_S)
        with Load(running, num_clients=8) as much:
            running.wait_for_replicas(2, FOLLOWS_S)
            much.wait_for(20)
            little.wait_for(20)
    assert (little.refused, little.broken, much.refused, much.broken) == ([], [], [], [])


def test_other_code_replaces_every_replica_and_no_request_fails(
    running: Running, bundle: Path
) -> None:
    """New settings restart replicas as new code does: both are arguments of the application."""
    running.scale(2, bundle)
    before = running.answering()
    address = running.printed["update"].rsplit("=", 1)[1]
    sets = [f"ray.address={address}", "serve.default_k=7", "serve.autoscaling.min_replicas=2"]
    with Load(running) as load:
        update = running.run(*(each for one in sets for each in ("--set", one)))
        assert update.returncode == 0, update.stderr
        deadline = time.monotonic() + 60
        while before & running.answering():
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert (load.refused[:3], load.broken[:3]) == ([], [])
    assert len(running.post("/recommend", {"user_id": "u"})["items"]) == 7


def test_what_is_too_much_is_refused_and_the_rest_answered(running: Running, bundle: Path) -> None:
    """Four times what the bounds admit: of each replica so many in work, and as many waiting."""
    running.scale(2, bundle)
    body, many = json.dumps({"user_id": "u"}), 4 * 2 * (16 + NUM_QUEUED)
    crowd = Clients(f"{running.url}/recommend", [body], 0.2, many, headers=running.headers)
    asyncio.run(crowd.run(4))
    good = [answer for answer in crowd.answers if answer.status == 200]
    refused = [answer for answer in crowd.answers if answer.status == 503]
    assert len(good) + len(refused) == len(crowd.answers), {each.status for each in crowd.answers}
    assert all(answer.retry_after for answer in refused)
    assert len(good) > 100 and len(refused) > 100
    assert percentile_ms(refused, 50) < percentile_ms(good, 50) / 2
    assert running.post("/recommend", {"user_id": "u"})["items"], "it goes on"


def test_a_crowd_over_grpc_is_answered_or_refused(running: Running, bundle: Path) -> None:
    """More at once than replicas admit; how many Serve comes to refuse, the machine decides."""
    running.scale(2, bundle)
    key = [("authorization", f"Bearer {running.key}")]

    async def crowd() -> Counter[str]:
        pool = [("grpc.use_local_subchannel_pool", 1)]  # a connection takes 100 calls at a time
        address = f"127.0.0.1:{running.ports[3]}"
        channels = [grpc.aio.insecure_channel(address, options=pool) for _ in range(8)]
        request = pb.RecommendRequest(user_id="u").SerializeToString()
        ask = [channel.unary_unary("/raycommend.v1.Ranking/Recommend") for channel in channels]
        calls = [ask[n % 8](request, metadata=key) for n in range(800)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        for channel in channels:
            await channel.close()
        return Counter(
            result.details() if isinstance(result, grpc.RpcError) else type(result).__name__
            for result in results
        )

    found = asyncio.run(crowd())
    assert found.keys() <= {"bytes", "Request dropped due to backpressure"}, found
    assert found["bytes"] > 100, found
    assert running.post("/recommend", {"user_id": "u"})["items"], "it goes on"
