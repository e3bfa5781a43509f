from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from ray_jobs.common.cluster import connected
from recsys.config import RayCluster

if TYPE_CHECKING:
    from object_store import ObjectStore

#: Set where nothing may be skipped for want of a program or a right: on the build machine.
STRICT = "RAYCOMMEND_NO_SKIPS"
#: What a machine cannot install.
ALLOWED = ("no GPU", "no namespaces are to be had", "no public data set")


#: The cluster that tests share, while there is one.
_shared = ExitStack()


@pytest.fixture(scope="session")
def cluster() -> None:
    """One Ray for all tests that need some cluster and end nothing in it: `connected` joins it.

    It takes longer to start than most of them do.
    """
    _shared.enter_context(connected(RayCluster(address="local", num_cpus=2), dashboard=True))
    # This cluster's folder alone: what a test starts has one of its own.
    folder = os.environ.pop("RAY_TMPDIR")
    _shared.callback(os.environ.__setitem__, "RAY_TMPDIR", folder)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A store on loopback that this process and its children find."""
    import object_store

    with object_store.running(monkeypatch) as found:
        yield found


def _shares(item: pytest.Item | None) -> bool:
    return "cluster" in getattr(item, "fixturenames", ())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests that share a cluster first, all together: services start beside no other Ray."""
    items.sort(key=_shares, reverse=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, None, None]:
    """End the shared cluster after the last test that needs it."""
    yield
    if _shares(item) and not _shares(nextitem):
        _shared.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.CallInfo[None], None]:
    """Fail a test that is skipped for want of a program, where `RAYCOMMEND_NO_SKIPS` is set."""
    report = (yield).get_result()  # type: ignore[attr-defined]
    if STRICT in os.environ and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[-1])
        if not any(allowed in reason for allowed in ALLOWED):
            report.outcome = "failed"
            report.longrepr = f"{STRICT} is set, and this test was skipped: {reason}"
