"""What the stores cost: every store is measured to its end, and the figures are plausible."""

from __future__ import annotations

import pytest

from benchmarks.state import stores
from benchmarks.state.redis_server import server_binary


@pytest.mark.parametrize("backend", stores.BACKENDS)
def test_every_store_is_measured(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "redis" and server_binary() is None:
        pytest.skip("no valkey-server or redis-server here")
    for name, value in {"READS": 20, "SINGLE": 10, "BATCHES": 2, "SHARD": 150}.items():
        monkeypatch.setattr(stores, name, value)
    per_user, per_event, *rates = stores.measure(backend, 400, 20)
    if backend != "memory":  # a process's pages are too coarse for so few
        assert 20 * 20 < per_user < 20 * 500
        assert per_event > 0
    assert len(rates) == 4 and min(rates) > 0
