"""A log in a store of objects, and what the store answers."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from object_store import ObjectStore, impatient
from tiny import tiny_log

from recsys.config import Data
from recsys.data.adapters.canonical import CanonicalAdapter
from recsys.errors import DataError


@pytest.fixture
def source(store: ObjectStore, tmp_path: Path) -> str:
    tiny_log(tmp_path / "log")
    for name in ("events.parquet", "items.parquet"):
        store.write(f"log/{name}", (tmp_path / "log" / name).read_bytes())
    return f"{store.uri}/log"


def adapter(source: str) -> CanonicalAdapter:
    cuts = {"valid": "2026-01-01", "test": "2026-02-01"}
    return CanonicalAdapter(Data.model_validate({"source": source, "cuts": cuts}))


def problem(source: str) -> str:
    (error,) = adapter(source).scan().problems
    return str(error)


def test_it_is_read_as_a_folder_is(source: str, tmp_path: Path) -> None:
    here, there = adapter(str(tmp_path / "log")), adapter(source)
    assert there.scan().problems == []
    for mine, other in zip(here.parts(), there.parts(), strict=True):
        assert here.read_events(mine).equals(there.read_events(other))
    assert here.read_items().table.equals(there.read_items().table)


def test_what_is_wrong_is_told_once(
    source: str, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert problem("s3://gone/log") == (
        "s3://gone/log: [data.source] there is no such bucket (got 'gone'). Fix: create it, or "
        "correct data.source"
    )
    with store.failing(lambda method, path: True):
        assert "the store does not answer" in problem(source)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    told = problem(source)
    assert "the store lets us not read" in told and "AWS Error INVALID_ACCESS_KEY_ID" in told


@pytest.mark.slow
def test_a_store_that_goes_in_the_middle_is_waited_for_and_is_no_damaged_file(
    source: str, store: ObjectStore
) -> None:
    log = adapter(source)
    (part,) = log.parts()
    store.stop()
    told = "the store does not answer.*run the same command"
    for act in (lambda: log.read_events(part), log.read_items):
        with impatient(), pytest.raises(DataError, match=told):
            act()
    threading.Timer(3.0, store.start).start()
    began = time.monotonic()
    assert log.read_events(part).height == part.num_rows
    assert time.monotonic() - began > 2
