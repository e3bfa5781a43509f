"""A disk that is really full: a file system of two megabytes, mounted for the test."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import KEY, item_id, make_recipe, version_in
from fastapi.testclient import TestClient
from monitoring import Tally
from services import make_service
from small_disk import fill, mounted

from recsys.data.feedback import Feedback, finished
from recsys.data.pseudonyms import pseudonym
from recsys.state import STATE_FILE
from recsys.state.sqlite.users import SqliteState
from serve.http.routes import build_http

ASKED = {"user_id": "u", "k": 3}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", megabytes=2) as folder:
        yield folder


def test_answers_go_on_and_nothing_that_was_accepted_is_lost(
    disk: Path,
    language_model: Path,
    bundle: Path,
    metrics: Tally,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAYCOMMEND_PSEUDONYM_KEY", KEY)
    recipe = make_recipe(disk / "run", language_model)
    service = make_service(recipe, metrics)

    def event(number: int) -> dict[str, str]:
        name = f"e{number}"
        return {"user_id": "u", "item_id": item_id(7), "event_type": "view", "event_id": name}

    with TestClient(build_http(service)) as client:
        assert client.portal is not None
        client.portal.call(service.load, bundle, version_in(bundle))
        assert client.post("/events", json=event(0)).status_code == 200
        other, accepted, refused = fill(disk), 1, 0
        # What has room in the log of writes that was begun is stored as well.
        for number in range(1, 300):
            answer = client.post("/events", json=event(number))
            if answer.status_code == 200:
                assert not refused, "full once, full until there is room"
                accepted += 1
            else:
                assert answer.status_code == 503, answer.text
                assert answer.headers["retry-after"]
                assert "full" in answer.json()["detail"][0]["msg"]
                refused += 1
            if refused == 20:
                break
        assert refused == 20
        shown = [client.post("/recommend", json=ASKED) for _ in range(20)]
        assert {answer.status_code for answer in shown} == {200}
        assert {answer.json()["basis"] for answer in shown} == {"personal"}, "reading goes on"
        assert not any(answer.json()["degraded"] for answer in shown)
        assert client.get("/readyz").status_code == 200

        def dropped() -> float:
            service.report()
            return metrics.gauges[("dropped_impressions",)]

        deadline = time.monotonic() + 20
        while dropped() < 60 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert dropped() == 60
        other.unlink()
        assert client.post("/events", json=event(1000)).json()["stored"] == 1
        assert client.post("/events", json=event(1000)).json()["stored"] == 0
        assert client.post("/recommend", json=ASKED).status_code == 200
    assert len(finished(Feedback.of(recipe.root).impressions)) == 1, "the lists since then"
    store = SqliteState(recipe.root / STATE_FILE, 1000)
    user = pseudonym("u", KEY.encode())
    held = {kept.event_id for kept in store.history(user, 1000)}
    store.close()
    names = [f"e{number}" for number in (*range(accepted), 1000)]
    assert held == {pseudonym(name, KEY.encode()) for name in names}
