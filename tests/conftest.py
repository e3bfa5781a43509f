"""How tests are shared out to processes by `pytest -n 2 --dist loadgroup`, as `make test` does."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files stay whole; those that start Ray go to one process, one cluster at a time."""
    with_ray = {
        item.path for item in items if any(map(item.get_closest_marker, ("ray", "serve", "chaos")))
    }
    for item in items:
        group = "ray" if item.path in with_ray else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
