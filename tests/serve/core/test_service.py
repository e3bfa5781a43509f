"""The service without HTTP: swapping models, the store behind the key, what a failure leaves."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from bundles import KEY, diverge, item_id, make_bundle, make_items, make_recipe, version_in
from redis_server import Server
from services import Clock, make_service

from recsys.artifacts.bundle import Bundle
from recsys.config import Recipe
from recsys.data.histories import Histories, build_histories
from recsys.data.pseudonyms import key_check, pseudonym
from recsys.errors import BundleError, DataError
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
from serve.ray.text_encoder import TextEncoder
from serve.schemas.problems import Unavailable
from serve.schemas.requests import Event, RecommendRequest, SessionEvent
from serve.settings import Settings

REQUEST = RecommendRequest(user_id="u")


def ask(service: Service) -> dict[str, object]:
    return dict(json.loads(asyncio.run(service.recommend(REQUEST))))


def version_of(bundle: Path) -> str:
    return Bundle.open(bundle, verify=False).version


def broken_copy(bundle: Path, target: Path) -> Path:
    shutil.copytree(bundle, target)
    vectors = target / "vectors.npy"
    content = bytearray(vectors.read_bytes())
    content[-1] ^= 1
    vectors.write_bytes(content)
    return target


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


def test_a_swap_changes_the_answer(service: Service, bundle: Path, other_bundle: Path) -> None:
    asyncio.run(service.load(bundle, version_in(bundle)))
    before = ask(service)
    asyncio.run(service.load(other_bundle, version_in(other_bundle)))
    after = ask(service)
    assert before["model_version"] == version_of(bundle)
    assert after["model_version"] == version_of(other_bundle)
    assert before["items"] != after["items"]


def test_a_broken_bundle_leaves_the_last_good_one(
    service: Service, bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    asyncio.run(service.load(bundle, version_in(bundle)))
    for wrong in (broken_copy(other_bundle, tmp_path / "broken"), tmp_path / "missing"):
        asyncio.run(service.load(wrong, version_in(wrong)))
        assert ask(service)["model_version"] == version_of(bundle)
        assert service.describe()["failed_update"]
    asyncio.run(service.load(bundle, version_in(bundle)))
    assert service.describe()["failed_update"] is None


def test_a_bundle_whose_language_model_fails_is_not_served(
    recipe: Recipe, bundle: Path, other_bundle: Path
) -> None:
    async def encode(folder: Path, version: str, items: list[dict[str, str | None]]) -> np.ndarray:
        if folder == other_bundle:
            raise BundleError("no language model", where=folder, fix="write it again")
        return np.zeros((len(items), 32), dtype=np.float32)

    service = Service(Settings.of(recipe), encode)
    asyncio.run(service.load(bundle, version_in(bundle)))
    asyncio.run(service.load(other_bundle, version_in(other_bundle)))
    assert ask(service)["model_version"] == version_of(bundle)
    assert service.describe()["failed_update"] == "no language model"


@pytest.mark.parametrize("route", ["recommend", "rank"])
def test_a_bundle_answers_once_before_it_is_served(
    service: Service, bundle: Path, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    """So a new replica is warm before the proxy hears of it: Serve waits for `load`."""

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("cannot answer")

    monkeypatch.setattr(Recommender, route, fails)
    with pytest.raises(RuntimeError, match="cannot answer"):
        asyncio.run(service.load(bundle, version_in(bundle)))
    with pytest.raises(Unavailable):
        asyncio.run(service.check())


def test_the_first_bundle_must_load(service: Service, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        asyncio.run(service.load(tmp_path / "missing", version_in(tmp_path / "missing")))


def test_requests_during_swaps_are_answered_by_one_model_or_the_other(
    service: Service, bundle: Path, other_bundle: Path
) -> None:
    async def run() -> list[dict[str, Any]]:
        await service.load(bundle, version_in(bundle))
        done = asyncio.Event()
        answers: list[dict[str, Any]] = []

        async def asking() -> None:
            while not done.is_set():
                answers.append(json.loads(await service.recommend(REQUEST)))

        askers = [asyncio.create_task(asking()) for _ in range(3)]
        for folder in (other_bundle, bundle, other_bundle):
            await service.load(folder, version_in(folder))
        done.set()
        await asyncio.gather(*askers)
        return answers

    answers = asyncio.run(run())
    items: dict[str, list[Any]] = {}
    for answer in answers:
        items.setdefault(str(answer["model_version"]), []).append(answer["items"])
    assert set(items) == {version_of(bundle), version_of(other_bundle)}
    for first, *others in items.values():
        # Who shares a pass of the model moves the last digits.
        expected = [{**item, "score": pytest.approx(item["score"], abs=1e-5)} for item in first]
        assert all(other == expected for other in others)


def test_raw_user_ids_are_not_stored(service: Service, bundle: Path, recipe: Recipe) -> None:
    asyncio.run(service.load(bundle, version_in(bundle)))
    event = Event(user_id="alice@example.com", item_id=item_id(1), event_type="view")
    asyncio.run(service.store([event], single=True))
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


def test_new_items_without_a_text_are_marked(
    tmp_path: Path, language_model: Path, bundle: Path
) -> None:
    items: list[dict[str, str | None]] = [{"title": "red cup"}, {"title": " "}]
    vectors = asyncio.run(TextEncoder().encode(str(bundle), version_in(bundle), items))
    assert vectors.shape == (2, 32)
    assert np.isfinite(vectors[0]).all()
    assert np.isnan(vectors[1]).all()


def test_the_encoder_holds_two_models_at_most(
    bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    encoder = TextEncoder()
    third = shutil.copytree(bundle, tmp_path / "third")
    for folder in (bundle, other_bundle, third):
        asyncio.run(encoder.encode(str(folder), version_in(folder), [{"title": "pen"}]))
    assert [folder for folder, _ in encoder._loaded] == [str(other_bundle), str(third)]


def test_the_encoder_does_not_take_one_bundle_for_another(bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    with pytest.raises(BundleError, match="the folder holds"):
        asyncio.run(TextEncoder().encode(str(folder), "tiny-before", [{"title": "pen"}]))


def test_new_content_of_the_same_folder_is_taken(
    service: Service, bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    asyncio.run(service.load(folder, version_in(folder)))
    shutil.rmtree(folder)
    shutil.copytree(other_bundle, folder)
    asyncio.run(service.load(folder, version_in(bundle)))  # sent again, as it is served now
    assert ask(service)["model_version"] == version_of(bundle)
    asyncio.run(service.load(folder, version_in(folder)))
    assert ask(service)["model_version"] == version_of(other_bundle)
    asyncio.run(service.load(folder, "tiny-of-yesterday"))
    assert str(service.describe()["failed_update"]).startswith("the folder holds")
    assert ask(service)["model_version"] == version_of(other_bundle)


def test_a_model_that_has_diverged_is_not_served(
    service: Service, bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    diverged = diverge(shutil.copytree(other_bundle, tmp_path / "diverged"))
    with pytest.raises(BundleError, match="not finite"):
        asyncio.run(service.load(diverged, version_in(diverged)))
    asyncio.run(service.load(bundle, version_in(bundle)))
    asyncio.run(service.load(diverged, version_in(diverged)))
    assert "not finite" in str(service.describe()["failed_update"])
    assert ask(service)["items"]


def test_a_bundle_of_another_key_is_refused(
    service: Service, recipe: Recipe, language_model: Path, tmp_path: Path
) -> None:
    """Nobody of its log would be known, and nobody would notice."""
    training = make_recipe(tmp_path / "training", language_model)
    foreign = make_bundle(tmp_path / "b", training, seed=4, key_check="0" * 16).folder
    with pytest.raises(DataError, match="pseudonym key"):
        asyncio.run(service.load(foreign, version_in(foreign)))
    mine = make_bundle(tmp_path / "c", training, seed=4, key_check=key_check(KEY.encode())).folder
    asyncio.run(service.load(mine, version_in(mine)))
    assert ask(service)["items"]


def test_event_ids_are_not_stored_either(service: Service, bundle: Path, recipe: Recipe) -> None:
    asyncio.run(service.load(bundle, version_in(bundle)))
    event = Event(
        event_id="alice@example.com:42", user_id="alice@example.com", item_id=item_id(1),
        event_type="buy",
    )  # fmt: skip
    for expected in (1, 0):
        answer = json.loads(asyncio.run(service.store([event], single=True)))
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
            waiting = [asyncio.create_task(service.store([event], single=True)) for _ in range(8)]
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
        asyncio.run(service.store([bought], single=True))
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
            asyncio.run(service.store([again], single=True))

        server.start()
        time.sleep(0.3)
        after = ask(service)
        assert (after["basis"], after["degraded"]) == ("personal", False)
        assert json.loads(asyncio.run(service.store([bought], single=True)))["stored"] == 0
        assert json.loads(asyncio.run(service.store([again], single=True)))["stored"] == 1
