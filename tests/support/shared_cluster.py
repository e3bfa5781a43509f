"""One Ray cluster for all tests that need some cluster: it takes longer to start than they do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ray_jobs.common.cluster import connected
from recsys.config import RayCluster

#: What the tests with the most workers need.
NUM_CPUS = 2


@contextmanager
def shared_cluster() -> Iterator[None]:
    """A cluster that `connected` joins, in this process, until the block ends."""
    with connected(RayCluster(address="local", num_cpus=NUM_CPUS), dashboard=True):
        # It is this cluster's folder alone: what a test starts has one of its own.
        folder = os.environ.pop("RAY_TMPDIR")
        yield
        os.environ["RAY_TMPDIR"] = folder
