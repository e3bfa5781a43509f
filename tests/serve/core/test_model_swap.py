"""Swapping models: what is tried before it is served, and what a failure leaves."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import KEY, diverge, make_bundle, make_recipe, version_in
from drifting import stable_night
from monitoring import Tally
from services import make_service

from recsys.artifacts.bundle import Bundle
from recsys.config import Recipe
from recsys.data.pseudonyms import key_check
from recsys.drift.findings import DRIFT_FILE
from recsys.errors import BundleError, DataError
from recsys.recommender import Recommender
from recsys.storage.outputs import write_json
from serve.core.service import Service
from serve.schemas.problems import Unavailable
from serve.schemas.requests import RecommendRequest
from serve.settings import Settings

REQUEST = RecommendRequest(user_id="u")


def ask(service: Service) -> dict[str, Any]:
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


def test_a_new_champion_brings_news_of_drift(
    recipe: Recipe, bundle: Path, other_bundle: Path
) -> None:
    tally = Tally()
    service = make_service(recipe, tally)
    asyncio.run(service.load(bundle, version_in(bundle)))
    service.report()
    assert ("drift_verdict", "price") not in tally.gauges
    write_json(recipe.root / DRIFT_FILE, stable_night())
    asyncio.run(service.load(other_bundle, version_in(other_bundle)))
    service.report()
    assert tally.gauges[("drift_verdict", "price")] == 1
    service.close()
