from __future__ import annotations

from collections.abc import Iterator

import object_store
import pytest
from object_store import ObjectStore

from recsys.storage import location


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A store on loopback that this process and its children find; asked for two seconds."""
    monkeypatch.setattr(location, "PATIENCE_S", 2.0)
    with object_store.running(monkeypatch) as found:
        yield found
