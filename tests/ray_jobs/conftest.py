from __future__ import annotations

from collections.abc import Iterator

import pytest
from shared_cluster import shared_cluster


@pytest.fixture(scope="package")
def cluster() -> Iterator[None]:
    """For tests that need a cluster and end nothing in it."""
    with shared_cluster():
        yield
