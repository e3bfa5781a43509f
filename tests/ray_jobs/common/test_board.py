"""The board on its own, without workers: what is asked of it, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from ray_jobs.common.board import Board
from ray_jobs.common.work import Training
from recsys.errors import DataError, RaycommendError, RecipeError

A, B = Training({}, "/runs/train-a"), Training({}, "/runs/train-b")
DIVERGED = RecipeError("training has diverged", fix="x")
MAX_LOST = 2


class Groups:
    """The groups that the board starts; each ends when its future is set."""

    def __init__(self) -> None:
        self.ends: list[asyncio.Future[None]] = []

    @property
    def num_started(self) -> int:
        return len(self.ends)

    def start(self, group: int) -> Awaitable[Any]:
        assert group == self.num_started
        self.ends.append(asyncio.get_running_loop().create_future())
        return self.ends[-1]


Case = Callable[[Board, Groups], Coroutine[Any, Any, None]]


def on_a_board(case: Case) -> None:
    async def run() -> None:
        groups = Groups()
        await asyncio.wait_for(case(Board(MAX_LOST, groups.start), groups), timeout=10)

    asyncio.run(run())


def test_all_workers_of_a_group_get_the_same_trainings() -> None:
    async def case(board: Board, groups: Groups) -> None:
        early = asyncio.ensure_future(board.take(0, 1.0, 0))
        await board.put_up(A)
        await board.put_up(B)
        assert [await early, await board.take(0, 1.0, 0)] == [A, A]
        await board.done(A.name)
        assert [await board.take(0, 1.0, 1) for _ in range(2)] == [B, B]

    on_a_board(case)


def test_as_many_groups_are_started_as_trainings_wait_at_once() -> None:
    async def case(board: Board, groups: Groups) -> None:
        await board.put_up(A)
        assert groups.num_started == 1
        await board.put_up(B)
        assert groups.num_started == 2
        await board.done(A.name)
        await board.put_up(Training({}, "/runs/train-c"))
        assert groups.num_started == 2

    on_a_board(case)


def test_a_trial_hears_of_each_epoch_and_the_workers_wait_for_its_answer() -> None:
    async def case(board: Board, groups: Groups) -> None:
        await board.put_up(A)
        await board.take(0, 1.0, 0)
        news = asyncio.ensure_future(board.news(A.name, 0))
        await asyncio.sleep(0)
        assert not news.done()
        await board.heard(A.name, {"epoch": 1})
        assert (await news).points == [{"epoch": 1}]
        asked = [asyncio.ensure_future(board.wants_more(A.name, 1)) for _ in range(2)]
        await asyncio.sleep(0.01)
        assert not any(each.done() for each in asked)
        await board.go_on(A.name, 1)
        assert [await each for each in asked] == [True, True]
        asked = [asyncio.ensure_future(board.wants_more(A.name, 2)) for _ in range(2)]
        await board.stop(A.name)
        assert [await each for each in asked] == [False, False]
        assert (await board.news(A.name, 1)).is_over

    on_a_board(case)


def test_what_is_stopped_before_it_is_taken_is_not_taken() -> None:
    async def case(board: Board, groups: Groups) -> None:
        await board.put_up(A)
        await board.put_up(B)
        await board.stop(A.name)
        await board.stop("unknown")
        assert await board.take(0, 1.0, 0) == B

    on_a_board(case)


def test_a_new_life_takes_up_what_was_at_work_before_anything_else() -> None:
    """An old worker that is not dead yet gets nothing."""

    async def case(board: Board, groups: Groups) -> None:
        await board.put_up(A)
        await board.put_up(B)
        assert await board.take(0, 1.0, 0) == A
        assert await board.take(0, 2.0, 0) == A
        assert await board.take(0, 1.0, 1) is None
        assert await board.take(0, 2.0, 0) == A

    on_a_board(case)


def test_a_group_that_gets_other_numbers_of_workers_has_lost_nothing() -> None:
    async def case(board: Board, groups: Groups) -> None:
        await board.put_up(A)
        for life in range(1, 2 * MAX_LOST):
            assert await board.take(0, float(life), 0) == A
        assert await board.remarks(0) == []
        assert (await board.news(A.name, -1)).num_lost == 0

    on_a_board(case)


def test_a_training_whose_workers_are_lost_too_often_has_failed() -> None:
    async def case(board: Board, groups: Groups) -> None:
        await board.put_up(A)
        await board.put_up(B)
        for life in range(1, MAX_LOST + 2):
            assert await board.take(0, float(life), 0) == A
            assert await board.crashed(0, None, "a kill")
        assert await board.take(0, MAX_LOST + 2.0, 0) == B
        error = (await board.news(A.name, 0)).error
        told = "its workers were lost 3 times, the last time: a kill"
        assert isinstance(error, RaycommendError) and error.problem == told
        lines = [
            f"a kill; all start again from the last checkpoint ({n} of 2 times)" for n in (1, 2)
        ]
        assert await board.remarks(0) == [(A.name, line) for line in lines]
        assert await board.remarks(1) == [(A.name, lines[1])]

    on_a_board(case)


def test_an_error_of_ours_is_not_tried_again() -> None:
    async def case(board: Board, groups: Groups) -> None:
        await board.put_up(A)
        await board.put_up(B)
        assert await board.take(0, 1.0, 0) == A
        assert await board.crashed(0, DIVERGED, "a long text"), "the group goes on with the next"
        assert (await board.news(A.name, 0)).error is DIVERGED
        assert await board.take(0, 2.0, 0) == B

    on_a_board(case)


@pytest.mark.parametrize("error", [None, DataError("broken", fix="x")])
def test_workers_that_cannot_begin_end_the_group(error: RaycommendError | None) -> None:
    """Nothing was taken: no training is to blame."""

    async def case(board: Board, groups: Groups) -> None:
        await board.put_up(A)
        answers = [await board.crashed(0, error, "no such module") for _ in range(MAX_LOST + 1)]
        assert answers == [error is None] * MAX_LOST + [False]
        groups.ends[0].set_exception(RuntimeError("no such module"))
        assert str((await board.news(A.name, 0)).error) == "no such module"

    on_a_board(case)


def test_with_the_last_group_all_that_waits_has_failed() -> None:
    async def case(board: Board, groups: Groups) -> None:
        for training in (A, B):
            await board.put_up(training)
        assert groups.num_started == 2
        await board.take(0, 1.0, 0)
        groups.ends[0].set_exception(RuntimeError("first"))
        waiting = asyncio.ensure_future(board.news(B.name, 0))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        groups.ends[1].set_exception(DIVERGED)
        assert str((await board.news(A.name, 0)).error) == "first"
        assert (await waiting).error is DIVERGED

    on_a_board(case)


def test_a_closed_board_lets_the_groups_end_and_waits_for_them() -> None:
    async def case(board: Board, groups: Groups) -> None:
        await board.put_up(A)
        await board.take(0, 1.0, 0)
        waiting = asyncio.ensure_future(board.take(0, 1.0, 1))
        closing = asyncio.ensure_future(board.close())
        assert await waiting is None
        assert not await board.wants_more(A.name, 1)
        await asyncio.sleep(0.01)
        assert not closing.done()
        groups.ends[0].set_result(None)
        await closing

    on_a_board(case)
