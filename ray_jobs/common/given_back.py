"""Room in the cluster that groups of workers hold, given back even if they are cut off.

Ray Train's own cleaner learns of a group's placement group once all its workers have started. A
group whose controller is killed before leaves it to the job, which may have much more to do: its
CPUs stay taken.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

#: Seconds that Ray has for ending controllers whose owners have ended.
ENDS_S = 60.0
#: Between two looks.
PAUSE_S = 0.2
#: The most that Ray lists.
MOST = 10_000

_log = logging.getLogger(__name__)


@contextmanager
def room_given_back() -> Iterator[None]:
    """Wait, after the block, for controllers that started in it to end; remove what they leave.

    Inside the block this job starts no placement groups but those of its trainings, and it ends all
    of them itself: here only what has gone wrong is put right.
    """
    # A training before the block may have left one, which ends when Python forgets the training.
    before, others = _placement_groups(), _controllers()
    try:
        yield
    finally:
        _wait_for_controllers(others)
        after = _placement_groups()
        for each in (after or set()) - before if before is not None else ():
            _remove(each)


def _wait_for_controllers(others: set[str]) -> None:
    """Wait until none but others is alive in two looks: a new one may not be seen at once."""
    deadline, num_quiet = time.monotonic() + ENDS_S, 0
    while num_quiet < 2 and time.monotonic() < deadline:
        time.sleep(PAUSE_S)
        num_quiet = 0 if _controllers() - others else num_quiet + 1
    if not num_quiet:
        _log.warning("controllers of Ray Train have not ended within %g s", ENDS_S)


def _controllers() -> set[str]:
    """Ids of this job's controllers of trainings that are alive; none if Ray cannot tell."""
    from ray.util.state import list_actors
    from ray.util.state.exception import RayStateApiException

    with suppress(RayStateApiException):
        address, job = _here()
        filters: Any = [("class_name", "=", "TrainController"), ("job_id", "=", job)]
        found = list_actors(address, filters=[*filters, ("state", "!=", "DEAD")], limit=MOST)
        return {each.actor_id for each in found}
    return set()


def _placement_groups() -> set[str] | None:
    """Placement groups of this job that are not removed; None if Ray cannot tell."""
    from ray.util.state import list_placement_groups
    from ray.util.state.exception import RayStateApiException

    with suppress(RayStateApiException):
        address, job = _here()
        filters: Any = [("creator_job_id", "=", job), ("state", "!=", "REMOVED")]
        found = list_placement_groups(address, filters=filters, limit=MOST)
        return {each.placement_group_id for each in found}
    return None


def _here() -> tuple[str, str]:
    """Address of the cluster, and this job's id."""
    import ray

    context = ray.get_runtime_context()
    return context.gcs_address, context.get_job_id()


def _remove(placement_group_id: str) -> None:
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(placement_group_id))))
