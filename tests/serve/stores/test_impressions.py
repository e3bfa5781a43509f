"""The log of answered lists: whole, off the hot path, and never in the way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bundles import KEY, item_id, version_in
from fastapi.testclient import TestClient
from services import make_service

from recsys.config import Recipe
from recsys.data.feedback import Feedback, finished
from recsys.data.pseudonyms import pseudonym
from recsys.schema import IMPRESSIONS, Col
from serve.core.service import Service
from serve.http.routes import build_http
from serve.stores.impressions import Impressions, Shown


def shown(number: int, num_items: int = 2, user: str | None = "u") -> Shown:
    items = [{"item_id": f"i{place}", "score": -float(place)} for place in range(num_items)]
    return Shown(f"r{number}", user, items, "model", number, "default")


def rows(folder: Path) -> list[dict[str, Any]]:
    tables = [pq.read_table(path) for path in finished(folder)]
    assert all(table.schema == IMPRESSIONS for table in tables)
    return pa.concat_tables(tables).to_pylist() if tables else []


def test_every_answered_list_is_logged(
    client: TestClient, service: Service, recipe: Recipe, bundle: Path
) -> None:
    new = {"title": "red cup"}
    answers = [
        client.post(path, json=body).json()
        for path, body in (
            ("/recommend", {"user_id": "u1", "k": 3}),
            ("/recommend", {"history": [{"item_id": item_id(3)}], "k": 2, "explain": True}),
            ("/rank", {"user_id": "u1", "candidates": [item_id(1), new, item_id(2)]}),
        )
    ]
    assert client.post("/recommend", json={"user_id": "u1", "k": 0}).status_code == 422
    before = time.time_ns() // 1000
    service.close()
    found = rows(Feedback.of(recipe.root).impressions)
    user = pseudonym("u1", KEY.encode())
    expected = [
        (answer["request_id"], who, item["item_id"], place, pytest.approx(item["score"], rel=1e-6))
        for answer, who in zip(answers, (user, None, user), strict=True)
        for place, item in enumerate(answer["items"], start=1)
    ]
    names = (Col.request, Col.user, Col.item, Col.position, Col.score)
    assert [tuple(row[name] for name in names) for row in found] == expected
    assert None in {row[Col.item] for row in found}, "the new item has no id"
    assert {row[Col.propensity] for row in found} == {1.0}
    assert {row[Col.arm] for row in found} == {"default"}
    assert {row[Col.model_version] for row in found} == {version_in(bundle)}
    ages = {before - int(row[Col.timestamp].timestamp() * 1e6) for row in found}
    assert all(0 <= age < 60e6 for age in ages)


@pytest.mark.parametrize(
    ("asked", "num_logged"),
    [({}, 5), ({"k": 7}, 7), ({"shown": 2}, 2), ({"k": 7, "shown": 0}, 0), ({"shown": 999}, 30)],
)
def test_of_many_candidates_those_are_logged_that_are_shown(
    client: TestClient, service: Service, recipe: Recipe, asked: dict[str, int], num_logged: int
) -> None:
    """Without a word that is as many as a list has by default."""
    assert recipe.serve.default_k == 5
    body = {"user_id": "u1", "candidates": [item_id(row) for row in range(30)], **asked}
    answer = client.post("/rank", json=body).json()
    assert len(answer["items"]) == asked.get("k", 30)
    service.close()
    found = rows(Feedback.of(recipe.root).impressions)
    assert [row[Col.item] for row in found] == [
        item["item_id"] for item in answer["items"][:num_logged]
    ]


def test_the_end_of_the_application_writes_what_waits(
    recipe: Recipe, bundle: Path, service: Service
) -> None:
    with TestClient(build_http(service)) as client:
        client.portal.call(service.load, bundle, version_in(bundle))
        client.post("/recommend", json={"user_id": "u1", "k": 3})
    assert len(rows(Feedback.of(recipe.root).impressions)) == 3


def test_the_recipe_may_turn_it_off(recipe: Recipe, bundle: Path) -> None:
    silent = recipe.model_copy(
        update={"serve": recipe.serve.model_copy(update={"impressions": False})}
    )
    service = make_service(silent)
    with TestClient(build_http(service)) as client:
        client.portal.call(service.load, bundle, version_in(bundle))
        assert client.post("/recommend", json={"user_id": "u1"}).status_code == 200
    assert not Feedback.of(recipe.root).folder.exists()


def test_they_are_written_without_being_asked(tmp_path: Path) -> None:
    log = Impressions(tmp_path, str.upper)
    log.offer(shown(1))
    deadline = time.monotonic() + 20
    while not finished(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [(row[Col.request], row[Col.user]) for row in rows(tmp_path)] == [("r1", "U")] * 2
    log.close()
    log.close()
    assert len(rows(tmp_path)) == 2
    assert not list(tmp_path.rglob(".*"))


def test_many_make_a_file_at_once(tmp_path: Path) -> None:
    log = Impressions(tmp_path, str, flush_s=60.0, flush_items=4)
    for number in range(2):
        log.offer(shown(number))
    deadline = time.monotonic() + 20
    while not finished(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(rows(tmp_path)) == 4
    log.close()


def test_a_disk_that_hangs_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import threading

    hangs, goes_on = threading.Event(), threading.Event()
    write = pq.write_table

    def slow(*arguments: Any, **options: Any) -> None:
        hangs.set()
        assert goes_on.wait(20)
        write(*arguments, **options)

    monkeypatch.setattr(pq, "write_table", slow)
    log = Impressions(tmp_path, str, flush_s=0.01, max_waiting=10)
    log.offer(shown(0))
    assert hangs.wait(20)
    for number in range(1, 1000):
        log.offer(shown(number))
    assert log.num_dropped == 2 * 995
    goes_on.set()
    log.close()
    assert sorted(row[Col.request] for row in rows(tmp_path))[::2] == [f"r{n}" for n in range(5)]
    assert "1990 shown items were not logged" in caplog.text


def test_a_folder_that_cannot_be_written_to_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    log = Impressions(tmp_path / "file", str)
    log.offer(shown(1))
    log.close()
    assert log.num_dropped == 2
    assert "cannot be written" in caplog.text
