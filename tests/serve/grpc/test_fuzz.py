"""Whatever comes over gRPC is answered or refused; nothing fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from bundles import SOLD_OUT, item_id
from grpc_calls import Code
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.grpc.servicer import METHODS
from serve.protos.server import SERVICE

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
                some(
                    user_id=IDS, item_id=IDS, event_type=KINDS, timestamp=TIMES, event_id=IDS,
                    value=NUMBERS, placement=IDS, sent_at=TIMES,
                    context=st.dictionaries(IDS, some(number=NUMBERS), max_size=2),
                ),
                max_size=3,
            ),
        ),
    ),
}  # fmt: skip


class TestFuzz:
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
