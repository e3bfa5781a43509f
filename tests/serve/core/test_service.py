"""The service without HTTP: its scores, the store behind the key, what a failure leaves."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from bundles import KEY, item_id, make_bundle, make_items, make_recipe, version_in
from redis_server import Server
from services import Clock, make_service

from recsys.config import Recipe
from recsys.data.histories import Histories, build_histories
from recsys.data.pseudonyms import pseudonym
from recsys.errors import DataError
from recsys.preparation.prepared import (
    CATALOGUE_DIR,
    HISTORIES_DIR,
    PREPARED,
    STATS_FILE,
    SUMMARY_FILE,
)
from recsys.recommender import Recommender
from recsys.schema import EVENT_CODE, Col
from serve.core.service import Service
from serve.schemas.events import Event
from serve.schemas.problems import Unavailable
from serve.schemas.requests import RecommendRequest, SessionEvent

REQUEST = RecommendRequest(user_id="u")


def ask(service: Service) -> dict[str, object]:
    return dict(json.loads(asyncio.run(service.recommend(REQUEST))))


def test_without_a_model_it_is_unavailable(service: Service) -> None:
    with pytest.raises(Unavailable):
        ask(service)
    with pytest.raises(Unavailable):
        asyncio.run(service.check())


def test_scores_are_the_library_s_to_the_last_digit(
    service: Service, bundle: Path, clock: Clock
) -> None:
    clock.now = now = 1_800_000_000_000_000
    asyncio.run(service.load(bundle, version_in(bundle)))
    seen = [SessionEvent(item_id=item_id(row)) for row in (3, 40, 3)]
    answer = json.loads(asyncio.run(service.recommend(RecommendRequest(history=seen, k=20))))
    model = Recommender.load(bundle)
    view, step = EVENT_CODE["view"], 1_000_000
    history = Histories.of(
        [3, 40, 3], [view] * 3, [now - 3 * step, now - 2 * step, now - step], now
    )
    none = np.zeros(0, dtype=np.int32)
    rows, scores = model.recommend(history, 20, exclude=none, allowed=model.allowed())
    assert [item["item_id"] for item in answer["items"]] == [model.item_id(row) for row in rows]
    assert [item["score"] for item in answer["items"]] == scores.tolist()


def test_raw_user_ids_are_not_stored(service: Service, bundle: Path, recipe: Recipe) -> None:
    asyncio.run(service.load(bundle, version_in(bundle)))
    event = Event(user_id="alice@example.com", item_id=item_id(1), event_type="view")
    asyncio.run(service.store(event))
    stored = b"".join(path.read_bytes() for path in recipe.root.glob("state.sqlite*"))
    assert b"alice" not in stored
    key = b"0123456789abcdef0123456789abcdef"
    rows = sqlite3.connect(recipe.root / "state.sqlite").execute("SELECT user FROM events")
    assert rows.fetchall() == [(pseudonym("alice@example.com", key),)]


def test_the_key_is_never_made_here(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAYCOMMEND_PSEUDONYM_KEY")
    with pytest.raises(DataError, match="no pseudonym key"):
        make_service(recipe)
    assert not list(recipe.root.glob("*.key"))


WINDOW_BASKETS = ("head_baskets", "valid_baskets", "test_baskets")


def prepare(root: Path, fingerprint: str) -> None:
    """What `prepare` leaves behind, for one user with two events."""
    folder = root / PREPARED
    (folder / HISTORIES_DIR).mkdir(parents=True)
    (folder / CATALOGUE_DIR).mkdir()
    events = pl.DataFrame(
        {
            Col.user: [pseudonym("known", b"0123456789abcdef0123456789abcdef")] * 2,
            Col.item_row: [3, 4],
            Col.event_type: ["view", "purchase"],
            Col.timestamp: pl.Series([1_700_000_000_000_000, 1_700_000_100_000_000]).cast(
                pl.Datetime("us", "UTC")
            ),
            Col.session: pl.Series([None, None], dtype=pl.String),
        }
    )
    pq.write_table(build_histories(events), folder / HISTORIES_DIR / "0.parquet")
    items = make_items()
    items.write_parquet(folder / CATALOGUE_DIR / "items.parquet")
    pl.DataFrame({Col.text: ["x"]}).write_parquet(folder / CATALOGUE_DIR / "texts.parquet")
    pl.DataFrame({"as_of": ["end"]}).write_parquet(folder / STATS_FILE)
    counts = {"items": items.height, "users": 1, **dict.fromkeys(WINDOW_BASKETS, 0)}
    summary = {
        "recipe": {"data": {}}, "data_fingerprint": fingerprint, "catalogue_fingerprint": "",
        "key_check": "", "language_model": "", "quarantined": {}, "counts": counts,
        "cuts_us": {"head": 0, "valid": 1, "test": 2, "end": None},
    }  # fmt: skip
    (folder / SUMMARY_FILE).write_text(json.dumps(summary))


@pytest.mark.parametrize(("fingerprint", "basis"), [("same", "personal"), ("other", "popularity")])
def test_users_of_the_log_are_known_from_the_start(
    recipe: Recipe, language_model: Path, tmp_path: Path, fingerprint: str, basis: str
) -> None:
    training = make_recipe(tmp_path / "training", language_model)
    bundle = make_bundle(tmp_path / "bundle", training, seed=3, data_fingerprint="same")
    prepare(recipe.root, fingerprint)
    service = make_service(recipe)
    asyncio.run(service.load(bundle.folder, version_in(bundle.folder)))
    answer = json.loads(asyncio.run(service.recommend(RecommendRequest(user_id="known"))))
    assert answer["basis"] == basis


def test_event_ids_are_not_stored_either(service: Service, bundle: Path, recipe: Recipe) -> None:
    asyncio.run(service.load(bundle, version_in(bundle)))
    event = Event(
        event_id="alice@example.com:42", user_id="alice@example.com", item_id=item_id(1),
        event_type="buy",
    )  # fmt: skip
    for expected in (1, 0):
        answer = json.loads(asyncio.run(service.store(event)))
        assert answer["stored"] == expected
    for file in recipe.root.glob("state.sqlite*"):
        assert b"alice" not in file.read_bytes()


def test_waiting_writers_do_not_hold_up_answers(
    service: Service, bundle: Path, recipe: Recipe
) -> None:
    """Another process writes into the store and does not finish."""
    event = Event(user_id="u", item_id=item_id(1), event_type="buy")
    session = RecommendRequest(history=[SessionEvent(item_id=item_id(1))])

    async def run() -> None:
        await service.load(bundle, version_in(bundle))
        with sqlite3.connect(recipe.root / "state.sqlite", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = [asyncio.create_task(service.store(event)) for _ in range(8)]
            await asyncio.sleep(0.2)
            for request in (REQUEST, session):
                await asyncio.wait_for(service.recommend(request), 5)
            await asyncio.wait_for(service.check(), 5)
            assert not any(task.done() for task in waiting)
            other.execute("ROLLBACK")
        stored = [json.loads(each)["stored"] for each in await asyncio.gather(*waiting)]
        assert stored == [1] * 8

    asyncio.run(run())


class TestStoreGone:
    """A real server that ends and comes back."""

    def test_answers_do_without_users_and_say_so(
        self,
        make_server: Callable[..., Server],
        bundle: Path,
        tmp_path: Path,
        language_model: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        server = make_server("--appendonly", "yes", "--appendfsync", "always")
        monkeypatch.setenv("RAYCOMMEND_PSEUDONYM_KEY", KEY)
        store = {"state": {"backend": "redis", "url": server.url}}
        service = make_service(
            make_recipe(tmp_path / "run", language_model, serve=store), store_cooldown_s=0.2
        )
        asyncio.run(service.load(bundle, version_in(bundle)))
        bought = Event(user_id="u", item_id=item_id(5), event_type="purchase", event_id="e1")
        asyncio.run(service.store(bought))
        before = ask(service)
        assert (before["basis"], before["degraded"]) == ("personal", False)

        server.stop(signal.SIGKILL)
        began = time.monotonic()
        answers = [ask(service) for _ in range(50)]
        # All but the first leave the store alone, until it is tried again.
        assert time.monotonic() - began < 10
        assert {(each["basis"], each["degraded"]) for each in answers} == {("popularity", True)}
        assert answers[0]["items"]
        session = RecommendRequest(history=[SessionEvent(item_id=item_id(5))])
        of_session = json.loads(asyncio.run(service.recommend(session)))
        assert (of_session["basis"], of_session["degraded"]) == ("session", False)
        again = bought.model_copy(update={"event_id": "e2"})
        with pytest.raises(DataError):  # what was not stored is not accepted: the route says 503
            asyncio.run(service.store(again))

        server.start()
        time.sleep(0.3)
        after = ask(service)
        assert (after["basis"], after["degraded"]) == ("personal", False)
        assert json.loads(asyncio.run(service.store(bought)))["stored"] == 0
        assert json.loads(asyncio.run(service.store(again)))["stored"] == 1
