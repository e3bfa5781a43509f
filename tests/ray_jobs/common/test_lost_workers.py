"""What ended workers, told in one clause, and lines that reach whoever waits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from ray_jobs.common.giving_up import giving_up, going_on
from ray_jobs.common.lost_workers import remarks_printed, what_ended
from recsys.errors import RaycommendError, RecipeError


def lost(text: str) -> Exception:
    from ray.exceptions import RayActorError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    return WorkerHealthCheckFailedError("A worker health check failed.", RayActorError(None, text))


def silent() -> Exception:
    from ray.train.v2._internal.exceptions import WorkerHealthCheckTimeoutError

    return WorkerHealthCheckTimeoutError("A worker health check has been hanging for 9.1 seconds.")


GLOO = RuntimeError(
    "[../gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 900000ms for recv to complete"
)
STILL = RuntimeError("a stack trace\nits loop has stood still for 900 s")
CLOSED = RuntimeError("a stack trace\nConnection closed by peer [127.0.0.1]:27431\n")


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ({0: GLOO, 1: silent()}, "worker 1 hangs: it does not answer (train.hang_minutes)"),
        ({0: GLOO, 2: GLOO}, "a worker hangs: worker 0 has waited for it 900 s"),
        ({0: STILL}, "worker 0 hangs: its loop has stood still for 900 s (train.hang_minutes)"),
        ({0: CLOSED, 1: lost("The actor died unexpectedly.")}, "worker 1 was lost"),
        ({1: lost("The actor died because its node has died.")}, "worker 1 was lost with its node"),
        ({3: CLOSED}, "worker 3 failed: Connection closed by peer [127.0.0.1]:27431"),
        ({3: ValueError()}, "worker 3 failed: ValueError"),
    ],
)
def test_what_ended_workers_is_one_clause(errors: dict[int, Exception], told: str) -> None:
    assert what_ended(errors) == told


def test_what_gloo_says_of_a_worker_that_does_not_come_is_understood() -> None:
    store, patience = dist.HashStore(), timedelta(seconds=2)
    with ThreadPoolExecutor(2) as both:
        join = partial(dist.ProcessGroupGloo, store, size=2, timeout=patience)
        here, there = both.map(lambda rank: join(rank=rank), range(2))
    with pytest.raises(RuntimeError) as raised:
        here.allreduce(torch.zeros(1)).wait()
    assert there.rank() == 1
    assert what_ended({0: raised.value}) == "a worker hangs: worker 0 has waited for it 2 s"


def test_each_loss_is_a_line_until_there_were_too_many(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with remarks_printed() as remarks:
        callback = giving_up(2, remarks)
        for _ in range(2):
            callback.after_exception(None, {1: lost("The actor died unexpectedly.")})
        with pytest.raises(RaycommendError) as raised:
            callback.after_exception(None, {0: silent()})
    assert capsys.readouterr().out.splitlines() == [
        f"    worker 1 was lost; {going_on(number, 2)}" for number in (1, 2)
    ]
    assert raised.value.problem == (
        "its workers were lost 3 times, the last time: worker 0 hangs: it does not answer "
        "(train.hang_minutes)"
    )


def test_an_error_of_ours_ends_all_at_once(tmp_path: Path) -> None:
    ours = RecipeError("training has diverged", fix="x")
    with pytest.raises(RecipeError, match="diverged"):
        giving_up(2, tmp_path / "remarks").after_exception(None, {0: CLOSED, 1: ours})
