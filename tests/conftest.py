from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest

from ray_jobs.common.cluster import connected
from recsys.config import RayCluster

#: Set where nothing may be skipped for want of a program or a right: on the build machine.
STRICT = "RAYCOMMEND_NO_SKIPS"
#: What a machine cannot install.
ALLOWED = ("no GPU",)


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """One Ray for all tests that need some cluster and end nothing in it: `connected` joins it.

    It takes longer to start than most of them do.
    """
    with connected(RayCluster(address="local", num_cpus=2), dashboard=True):
        # This cluster's folder alone: what a test starts has one of its own.
        folder = os.environ.pop("RAY_TMPDIR")
        yield
        os.environ["RAY_TMPDIR"] = folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests that share a cluster last: it lives to the end, and services start their own."""
    items.sort(key=lambda item: "cluster" in getattr(item, "fixturenames", ()))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.CallInfo[None], None]:
    """Fail a test that is skipped for want of a program, where `RAYCOMMEND_NO_SKIPS` is set."""
    report = (yield).get_result()  # type: ignore[attr-defined]
    if STRICT in os.environ and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[-1])
        if not any(allowed in reason for allowed in ALLOWED):
            report.outcome = "failed"
            report.longrepr = f"{STRICT} is set, and this test was skipped: {reason}"
