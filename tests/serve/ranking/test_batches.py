from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import NUM_ITEMS
from monitoring import Tally

from recsys.data.histories import Histories
from recsys.ranking.encoded import MOST_HISTORIES, EncodedHistory
from recsys.recommender import Recommender
from recsys.schema import EVENT_CODE
from serve.observability import trace
from serve.ranking.batches import Batches
from serve.ranking.queries import Query

VIEW = EVENT_CODE["view"]


@pytest.fixture(scope="module")
def model(bundle: Path) -> Recommender:
    return Recommender.load(bundle)


class Asked:
    """Batches of one model.

    Args:
        model: ranks.
        metrics: of the batches.
    """

    def __init__(self, model: Recommender, metrics: Tally) -> None:
        self.model, self.batches = model, Batches(metrics)

    def __call__(
        self, make: Callable[[], Query], answer: Any = None, *, whole: bool = True
    ) -> Coroutine[Any, Any, Any]:
        return self.batches.submit(self.model, make, answer or scores, whole=whole)

    async def meanwhile(self, *questions: Coroutine[Any, Any, Any]) -> list[Any]:
        """What those are told who come while the thread is busy."""
        begun, let_go = threading.Event(), threading.Event()

        def held() -> Query:
            begun.set()
            assert let_go.wait(30)
            return query(1)

        first = asyncio.create_task(self(held))
        assert await asyncio.to_thread(begun.wait, 30)
        others = [asyncio.create_task(each) for each in questions]
        await asyncio.sleep(0)  # all have put their question
        let_go.set()
        await first
        return await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
def ask(model: Recommender, metrics: Tally) -> Iterator[Asked]:
    asked = Asked(model, metrics)
    yield asked
    asked.batches.close()


def query(number: int) -> Query:
    rows = np.arange(number % 20, dtype=np.int32)
    times = range(len(rows))
    return Query(Histories.of(rows, [VIEW] * len(rows), times, 100), "session", [])


def scores(_: Query, encoded: EncodedHistory) -> Any:
    return encoded.scores()


def test_all_who_come_meanwhile_share_a_pass(ask: Asked, metrics: Tally) -> None:
    wanted = [query(number) for number in range(20)]
    found = asyncio.run(ask.meanwhile(*(ask(lambda q=q: q) for q in wanted)))
    assert metrics.values["pass_requests",] == [1, 20]
    for each, mine in zip(wanted, found, strict=True):
        expected = ask.model.scorer.scores(each.history)[0]
        np.testing.assert_allclose(mine, expected, atol=1e-5)


def test_a_batch_is_bounded(ask: Asked, metrics: Tally) -> None:
    asyncio.run(ask.meanwhile(*(ask(lambda: query(3)) for _ in range(MOST_HISTORIES + 3))))
    assert metrics.values["pass_requests",] == [1, MOST_HISTORIES, 3]


def test_what_cannot_be_answered_takes_no_other_along(ask: Asked) -> None:
    def no_query() -> Query:
        raise KeyError("of the query")

    def unreadable() -> Query:
        rows = np.array([NUM_ITEMS // 2], dtype=np.int32)
        return Query(Histories.of(rows, [99], [0], 100), "session", [])

    def no_answer(_: Query, encoded: EncodedHistory) -> Any:
        raise FloatingPointError("of the answer")

    def at_its_end(_: Query, encoded: EncodedHistory) -> Any:
        return next(iter(()))

    found = asyncio.run(
        ask.meanwhile(
            ask(lambda: query(1)),
            ask(no_query),
            ask(unreadable),
            ask(lambda: query(2), no_answer),
            ask(lambda: query(3), whole=False),
            ask(lambda: query(4), at_its_end),
        )
    )
    assert [type(each) for each in found] == [
        np.ndarray, KeyError, IndexError, FloatingPointError, np.ndarray, RuntimeError,
    ]  # fmt: skip
    for place, number in ((0, 1), (4, 3)):
        expected = ask.model.scorer.scores(query(number).history)[0]
        np.testing.assert_allclose(found[place], expected, atol=1e-5)


def test_of_those_who_left_nothing_is_made(ask: Asked) -> None:
    made: list[str] = []

    def marked(name: str) -> Query:
        made.append(name)
        return query(1)

    async def run() -> None:
        left: list[asyncio.Task[Any]] = []

        async def leave() -> None:
            left.append(asyncio.create_task(ask(lambda: marked("left"))))
            await asyncio.sleep(0)
            left[0].cancel()

        await ask.meanwhile(leave(), ask(lambda: marked("stays")))
        assert left[0].cancelled()

    asyncio.run(run())
    assert made == ["stays"]


def test_a_loop_that_is_gone_stops_nothing(ask: Asked) -> None:
    begun, let_go = threading.Event(), threading.Event()

    def held() -> Query:
        begun.set()
        assert let_go.wait(30)
        return query(1)

    async def leave() -> None:
        asyncio.create_task(ask(held))  # noqa: RUF006 - it ends with the loop
        assert await asyncio.to_thread(begun.wait, 30)

    asyncio.run(leave())
    let_go.set()
    assert len(asyncio.run(ask(lambda: query(1))))


def test_each_is_answered_as_its_own_request(ask: Asked) -> None:
    async def one(name: str) -> None:
        trace.begin_trace(name)
        asked: list[str] = []

        def make() -> Query:
            asked.append(trace.current_id())
            return query(2)

        assert await ask(make, lambda *_: trace.current_id()) == name
        assert asked == [name]

    async def several() -> None:
        await asyncio.gather(*(one(f"r{number}") for number in range(12)))

    asyncio.run(several())


def test_closing_answers_those_who_wait(model: Recommender, metrics: Tally) -> None:
    async def run() -> list[Any]:
        ask = Asked(model, metrics)
        waiting = [asyncio.create_task(ask(lambda: query(4))) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.to_thread(ask.batches.close)
        return await asyncio.gather(*waiting)

    assert len(asyncio.run(run())) == 3
