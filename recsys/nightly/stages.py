"""The stages of a night, one after another: what is done is kept, and not done again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Generic, TypeVar

from recsys.nightly.night import Night, Nights

_R = TypeVar("_R")


class NothingToDo(Exception):
    """A stage has nothing to do; its text says why."""


@dataclass(frozen=True)
class Stage(Generic[_R]):
    """A stage.

    Attributes:
        name: of it.
        work: does it, and gives what it has to tell, line by line; what it notes in the night is
            kept. Done twice it is done once: a night that was killed begins it again.
        on_ray: whether it needs a cluster.
    """

    name: str
    work: Callable[[_R, Night], Iterable[str]]
    on_ray: bool = False


def go_through(
    stages: Sequence[Stage[_R]],
    run: _R,
    night: Night,
    nights: Nights,
    cluster: Callable[[], AbstractContextManager[None]],
) -> None:
    """Do the stages that are not done; the night is kept after each.

    Args:
        stages: all of a night.
        run: what they work on.
        night: as far as it has come.
        nights: keep it.
        cluster: is entered before the first stage that needs it, and left at the end.

    Raises:
        BaseException: of the stage that fails; `night.failed` names it before.
    """
    with ExitStack() as stack:
        is_connected = False
        for number, stage in enumerate(stages, start=1):
            begin = f"[{number}/{len(stages)}] {stage.name}"
            if stage.name in night.stages:
                print(f"{begin}: done before", flush=True)
                continue
            print(begin, flush=True)
            night.failed = {"stage": stage.name, "error": "interrupted"}
            nights.write(night)  # who is killed leaves the stage that it was at
            if stage.on_ray and not is_connected:
                stack.enter_context(cluster())
                is_connected = True
            started = time.monotonic()
            try:
                told = list(stage.work(run, night))
            except NothingToDo as nothing:
                told = [f"nothing to do: {nothing}"]
            seconds = round(time.monotonic() - started, 1)
            for line in told:
                print(f"    {line}" if line else "")
            print(f"    {seconds:.0f} s", flush=True)
            night.stages[stage.name] = {"seconds": seconds, "told": told}
            nights.write(night)
    night.failed = None
