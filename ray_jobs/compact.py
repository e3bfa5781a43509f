"""What the service took in -> canonical events, for the next `prepare`; erasures carried out.

    python -m ray_jobs.compact --config recipes/demo.yaml

One process, no Ray: it is bound by one store and one disk. It may run beside the service, as often
as wanted, and be killed anywhere: the next run goes on, nothing is lost and nothing doubled.

Exactly once: the store names a batch of its outbox durably (`UserState.claim`), the batch is
written under that name, aside and then renamed, and only then dropped from the store. A batch whose
file is there already had been written by a run that did not live to drop it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from recsys.artifacts.run import Run
from recsys.data.feedback import (
    Feedback,
    count_rows,
    erase_rows,
    events_table,
    finished,
    merge_days,
    tidy,
)
from recsys.errors import DataError
from recsys.reporting.examples import forget
from recsys.reporting.page import write_page
from recsys.state import STATE_FILE, Tombstone, UserState, joined, open_state, state_of
from recsys.storage.conditional import locked
from recsys.storage.mirror import Mirror
from recsys.storage.outputs import whole_file

#: Events in a file at most.
BATCH = 50_000


def plan(run: Run) -> list[str]:
    """What a run would do."""
    feedback, state = run.feedback, _open(run)
    try:
        return [
            f"take {state.num_waiting():,} events to {feedback.events}",
            f"carry out the erasure of {len(state.erased() | feedback.erased()):,} users there "
            f"and in {feedback.impressions}",
        ]
    finally:
        state.close()


def execute(run: Run) -> Path:
    """Empty the store's outbox and carry out erasures.

    Returns:
        The feedback folder.

    Raises:
        DataError: there is no store that can be reached, or another `compact` runs.
        StorageError: the feedback lies at a URI, and another `compact` runs, or the store fails.
    """
    feedback, state = run.feedback, _open(run)
    mirror = run.feedback_mirror
    try:
        with feedback.locked(exclusive=True), _mirrored(mirror):
            drain(state, feedback, mirror)
            erased = joined(state.erased(), feedback.erased())
            if erased != feedback.erased():
                feedback.write_erased(erased)
            for folder in (feedback.events, feedback.impressions):
                tidy(folder)
            if erased:
                files = _files(feedback)
                erase_rows(feedback.unchecked(files, erased), erased)
                feedback.mark_checked(files, erased)
                _forget(run, erased)
            for folder in (feedback.events, feedback.impressions):
                merge_days(folder, dt.datetime.now(dt.UTC).date())
        state.sweep()
    finally:
        state.close()
    return feedback.folder


@contextmanager
def _mirrored(mirror: Mirror | None) -> Iterator[None]:
    """Work on what lies at a URI, alone; it is there when the block has ended well."""
    if mirror is None:
        yield
        return
    with locked(mirror.location, "compact") as lease:
        mirror.pull()
        yield
        lease.must_hold()
        mirror.push()


def drain(state: UserState, feedback: Feedback, mirror: Mirror | None = None) -> None:
    """Move what waits in the outbox to files; of what comes meanwhile, maybe not all."""
    left = state.num_waiting()
    while left > 0 and (batch := state.claim(BATCH)):
        left -= len(batch.events)
        path = feedback.events / f"{batch.id}.parquet"
        if batch.events and not path.exists():
            with whole_file(path) as aside:
                pq.write_table(events_table(batch.events), aside, compression="zstd")
        if batch.events and mirror is not None:
            mirror.upload(path)
        state.settle(batch.id)


def _forget(run: Run, erased: dict[str, Tombstone]) -> None:
    """Take erased users off the run's page."""
    shown = [run.examples_file, run.decision_file]
    run.recipe.shared.bring_files(shown)
    if forget(run, erased):
        run.recipe.shared.hand_in(*filter(Path.is_file, shown))
        write_page(run)


def _files(feedback: Feedback) -> list[Path]:
    return [*finished(feedback.events), *finished(feedback.impressions)]


def report(run: Run) -> list[str]:
    """What lies there now."""
    feedback = run.feedback
    events, impressions = finished(feedback.events), finished(feedback.impressions)
    return [
        f"{count_rows(events):,} live events in {len(events):,} files",
        f"{count_rows(impressions):,} impressions in {len(impressions):,} files",
        f"{len(feedback.erased()):,} users erased",
    ]


def missing_store(run: Run) -> DataError | None:
    """Why there is no store of users that can be reached; None: there is one."""
    state, path = state_of(run.recipe), run.root / STATE_FILE
    if state.backend == "memory":
        return DataError(
            "keeps its users in the service's process, where no other can reach them",
            where="recipe", field="serve.state.backend", value="memory",
            fix="use sqlite or redis",
        )  # fmt: skip
    if state.backend == "sqlite" and not Path(state.path or path).is_file():
        return DataError(
            "no store of users here", where=state.path or path, field="serve.state.path",
            fix="run `recsys serve` first, on this machine",
        )  # fmt: skip
    return None


def _open(run: Run) -> UserState:
    if (missing := missing_store(run)) is not None:
        raise missing
    return open_state(state_of(run.recipe), run.root / STATE_FILE)


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("compact")
