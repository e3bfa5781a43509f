"""Where a search's trials put up what is to be trained, and groups of workers take it from.

Ray Train cannot use its workers for a second `fit()`, and to start a group costs more than a small
trial trains for. So a group lives as long as the search and takes one training after another. A
trial hears of its epochs here, and says after each whether there is to be another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ray_jobs.common.giving_up import SEE_LOGS, going_on, lost_too_often
from ray_jobs.common.work import Training
from recsys.errors import RaycommendError, cause_of

#: Seconds that groups have to end in when their board is closed; what is left of them is killed.
END_S = 10.0
#: Of the actor: a job searches once at a time.
NAME = "the board of the search"


@dataclass
class Entry:
    """One training on the board.

    Attributes:
        training: what the workers are told of it.
        points: of the curve, as far as they have trained since it was put up.
        allowed: epochs after which another one was asked for.
        is_over: no worker goes on with it.
        error: why it failed.
        num_lost: how often its workers were lost.
        last_words: what ended them the last time, if they could tell.
    """

    training: Training
    points: list[dict[str, Any]] = field(default_factory=list)
    allowed: set[int] = field(default_factory=set)
    is_over: bool = False
    error: Exception | None = None
    num_lost: int = 0
    last_words: str = ""


@dataclass
class _Group:
    """What a group of workers has taken in its present life.

    Attributes:
        life: when it started.
        taken: its trainings in turn; the last one is at work.
        has_crashed: something ended its workers; without it a new life has other numbers of them.
        num_crashed: how often its workers crashed without a training.
    """

    life: float = 0
    has_crashed: bool = False
    num_crashed: int = 0
    taken: list[asyncio.Task[Entry | None]] = field(default_factory=list)

    @property
    def current(self) -> Entry | None:
        if not self.taken or not self.taken[-1].done():
            return None
        return self.taken[-1].result()


class Board:
    """The board; as a Ray actor its methods are called by trials, workers and the driver.

    Args:
        max_lost: how often a training is taken up again whose workers were lost.
        start: starts a group of workers, given its number; what it returns ends with the group.
    """

    def __init__(self, max_lost: int, start: Callable[[int], Awaitable[Any]]) -> None:
        self._max_lost, self._start = max_lost, start
        self._entries: dict[str, Entry] = {}
        self._waiting: deque[Entry] = deque()
        self._groups: dict[int, _Group] = {}
        self._started: list[asyncio.Task[None]] = []
        self._gone: set[int] = set()
        self._is_closed = False
        self._remarks: list[tuple[str, str]] = []
        self._changed = asyncio.Condition()

    # Trials and the driver

    async def put_up(self, training: Training) -> None:
        """Ask for a training; another group of workers is started if all are at work."""
        self._entries[training.name] = entry = Entry(training)
        self._waiting.append(entry)
        num_groups = len(self._started) - len(self._gone)
        if sum(not each.is_over for each in self._entries.values()) > num_groups:
            number = len(self._started)
            self._started.append(asyncio.ensure_future(self._watch(number, self._start(number))))
        await self._tell()

    async def news(self, name: str, num_seen: int) -> Entry:
        """A training, once it has more epochs than were seen, or is over."""
        entry = self._entries[name]
        await self._until(lambda: len(entry.points) > num_seen or entry.is_over)
        return entry

    async def go_on(self, name: str, epoch: int) -> None:
        """Ask for another epoch after one."""
        self._entries[name].allowed.add(epoch)
        await self._tell()

    async def remarks(self, num_seen: int) -> list[tuple[str, str]]:
        """What became of lost workers after those seen: the name of a training and a line each."""
        return self._remarks[num_seen:]

    async def stop(self, name: str) -> None:
        """Ask for no further epoch of a training; of one that is over, or unknown, nothing."""
        if entry := self._entries.get(name):
            await self._end(entry)

    async def close(self) -> None:
        """Let all groups end, and wait for it for a while: one within an epoch need not end it."""
        self._is_closed = True
        for entry in self._entries.values():
            entry.is_over = True
        await self._tell()
        if self._started:
            await asyncio.wait(self._started, timeout=END_S)

    # Groups of workers

    async def take(self, group: int, life: float, number: int) -> Training | None:
        """The `number`-th training of a group's life; None: no more.

        All workers of a group ask alike and get the same. What was at work when a life ended is
        the first of the next, unless it was lost too often. A group that only gets more workers,
        or fewer, has lost nothing.
        """
        mine = self._groups.setdefault(group, _Group())
        if life < mine.life:
            return None
        if life > mine.life:
            lost, has_crashed = mine.current, mine.has_crashed
            for task in mine.taken:
                task.cancel()
            mine.life, mine.taken, mine.has_crashed = life, [], False
            if lost is not None and not lost.is_over and has_crashed:
                await self._lost(lost)
            elif lost is not None and not lost.is_over:
                self._waiting.appendleft(lost)
        if len(mine.taken) == number:
            mine.taken.append(asyncio.ensure_future(self._next()))
        entry = await asyncio.shield(mine.taken[number])
        return None if entry is None else entry.training

    async def crashed(self, group: int, error: RaycommendError | None, text: str) -> bool:
        """Something ended a group's workers; returns whether to start it again.

        An error of ours would end them again, with the same training or before they take one.
        """
        mine = self._groups.setdefault(group, _Group())
        mine.has_crashed = True
        if entry := mine.current:
            entry.last_words = text
            if error is not None:
                await self._end(entry, error)
            return True
        mine.num_crashed += 1
        return error is None and mine.num_crashed <= self._max_lost

    async def heard(self, name: str, point: dict[str, Any]) -> None:
        """An epoch is trained; told by one worker of the group."""
        self._entries[name].points.append(point)
        await self._tell()

    async def wants_more(self, name: str, epoch: int) -> bool:
        """Whether another epoch is asked for after one; waits for the answer."""
        entry = self._entries[name]
        await self._until(lambda: epoch in entry.allowed or entry.is_over)
        return not entry.is_over

    async def done(self, name: str, error: Exception | None = None) -> None:
        """A training is at its end, or has failed; told by one worker of the group."""
        await self._end(self._entries[name], error)

    # Within

    async def _watch(self, group: int, ends: Awaitable[Any]) -> None:
        """Wait for a group's end; with the last one all that is left has failed."""
        error: Exception
        try:
            await ends
            error = RaycommendError("its workers ended", fix=SEE_LOGS)
        except Exception as raised:
            error = cause_of(raised) or RuntimeError(str(raised))
        self._gone.add(group)
        mine = self._groups.setdefault(group, _Group()).current
        is_last = len(self._gone) == len(self._started)
        for entry in self._entries.values() if is_last else [mine] if mine else []:
            await self._end(entry, error)

    async def _next(self) -> Entry | None:
        """The first one that waits, once there is one; None once the board is closed."""
        while True:
            await self._until(lambda: bool(self._waiting) or self._is_closed)
            if self._is_closed:
                return None
            entry = self._waiting.popleft()
            if not entry.is_over:
                return entry

    async def _lost(self, entry: Entry) -> None:
        entry.num_lost += 1
        if entry.num_lost <= self._max_lost:
            told = entry.last_words or "its workers were lost"
            told += f"; {going_on(entry.num_lost, self._max_lost)}"
            self._remarks.append((entry.training.name, told))
            self._waiting.appendleft(entry)
            return
        await self._end(entry, lost_too_often(entry.num_lost, entry.last_words))

    async def _end(self, entry: Entry, error: Exception | None = None) -> None:
        if not entry.is_over:
            entry.is_over, entry.error = True, error
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)


def the_board() -> Any:
    """Handle of the board of the search that is at work in this job."""
    import ray

    return ray.get_actor(NAME)


def trained_by_others(board: Any, training: Training) -> Iterator[dict[str, Any]]:
    """The epochs of a training that is put up, as they end; asking for the next one is going on.

    Args:
        board: handle of a `Board`.
        training: to be put up.

    Raises:
        Exception: what the training failed by.
    """
    import ray

    ray.get(board.put_up.remote(training))
    num_seen = 0
    while True:
        entry: Entry = ray.get(board.news.remote(training.name, num_seen))
        for point in entry.points[num_seen:]:
            yield point
            ray.get(board.go_on.remote(training.name, point["epoch"]))
        num_seen = len(entry.points)
        if entry.error is not None:
            raise entry.error
        if entry.is_over:
            return
