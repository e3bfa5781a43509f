from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from recsys.storage.scratch import Scratch
from serve.launch import stopping


@pytest.mark.ray  # it is imported, and not started
def test_a_replica_that_does_not_obey_keeps_no_other_from_an_orderly_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray import serve

    told: list[str] = []

    def broadcast(what: str) -> SimpleNamespace:
        async def results_async(**_: object) -> None:
            raise TimeoutError

        told.append(what)
        return SimpleNamespace(results_async=results_async)

    handle = SimpleNamespace(broadcast=broadcast)
    monkeypatch.setattr(serve, "get_app_handle", lambda _: handle)
    monkeypatch.setattr(stopping, "close_proxies", lambda _: told.append("proxies"))
    stopping.drain(Scratch(Path("/tmp/rc-nobody"), -1), grace_s=0.0)
    assert told == ["drain", "proxies", "close"]
