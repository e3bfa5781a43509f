from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bundles import version_in
from fastapi.testclient import TestClient

from serve.core.service import Service
from serve.models.arms import ResolvedArm


@pytest.fixture
def load(client: TestClient, service: Service, bundle: Path) -> Callable[..., None]:
    """Serve some arms."""

    def loading(*arms: ResolvedArm) -> None:
        assert client.portal is not None
        client.portal.call(service.load, bundle, version_in(bundle), arms)

    return loading


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert "shadow" not in {thread.name for thread in threading.enumerate()}
