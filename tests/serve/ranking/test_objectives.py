"""Lists ordered by what is expected of them: on a log whose true probabilities are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from arms import arm, post
from bundles import NUM_ITEMS, item_id, make_bundle, make_recipe, version_in
from documented_requests import answers
from documents import blocks
from fastapi.testclient import TestClient
from grpc_calls import channel_to, fields_of, message_of
from http_calls import ids
from outcome_shop import NOW, NUM_USERS, OutcomeShop, user
from services import Clock
from shown_lists import known

from recsys.artifacts.run import HEADS, HEADS_USERS
from recsys.config import Recipe, Serve
from recsys.data.feedback import Feedback, finished
from recsys.errors import BundleError
from recsys.recommender import Recommender
from recsys.schema import Col
from serve.__main__ import served_bundle
from serve.core.service import Service
from serve.protos.ranking_pb2_grpc import RankingStub

#: Nothing was put into a cart.
EXPECTED = {"click", "purchase", "dwell_ms", "value"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> OutcomeShop:
    return OutcomeShop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def bundle(
    tmp_path_factory: pytest.TempPathFactory, language_model: Path, shop: OutcomeShop
) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    recipe = make_recipe(folder, language_model)
    return make_bundle(folder / "bundle", recipe, seed=1, outcomes=shop.heads).folder


@pytest.fixture
def recipe(recipe: Recipe, shop: OutcomeShop, clock: Clock) -> Recipe:
    folder = recipe.root / HEADS
    shop.heads.save(folder, folder / HEADS_USERS)
    clock.now = NOW
    return recipe


@pytest.fixture
def offline(bundle: Path, recipe: Recipe) -> Recommender:
    model = Recommender.load(bundle)
    assert model.outcomes is not None
    model.outcomes = model.outcomes.with_users(recipe.root / HEADS / HEADS_USERS)
    return model


def expected_of(answer: dict[str, Any], name: str) -> list[float]:
    return [item["explanation"]["expected"][name] for item in answer["items"]]


def ranked(client: TestClient, who: dict[str, Any], rows: list[int], **more: Any) -> dict[str, Any]:
    """The answer to `/rank`, its items in the request's order."""
    body = {"candidates": [item_id(row) for row in rows], **who, **more}
    answer = post(client, "/rank", body)
    answer["items"].sort(key=lambda item: item["candidate"])
    return answer


def test_requests_of_the_page_are_answered(client: TestClient) -> None:
    found = [
        answer
        for block in blocks("bash")
        if block.page.name == "objectives.md"
        for answer in answers(block, client)
    ]
    assert found and all(len(answer["items"]) == 5 for answer in found)


class TestProbabilities:
    def test_are_those_of_the_heads_to_the_digit(
        self, client: TestClient, offline: Recommender
    ) -> None:
        rows = [7, 1, 250, 40, 8]
        for who, name in (({"user_id": user(3)}, known(user(3))), ({"history": []}, None)):
            for placement in (None, "home/top"):
                told = {} if placement is None else {"placement": placement}
                answer = ranked(client, who, rows, explain=True, **told)
                scores = np.array([item["score"] for item in answer["items"]], dtype=np.float32)
                assert offline.outcomes is not None
                found = offline.outcomes.expect(
                    name, np.array(rows), scores, now=NOW, placement=placement
                )
                assert answer["items"][0]["explanation"]["expected"].keys() == EXPECTED
                for each in EXPECTED:
                    assert expected_of(answer, each) == getattr(found, each).tolist()

    def test_are_calibrated(self, client: TestClient, shop: OutcomeShop) -> None:
        """What the truth draws lies within the interval of what the service promises."""
        rng = np.random.default_rng(11)
        told, drawn, bought = [], [], []
        for number in range(NUM_USERS):
            rows = rng.choice(NUM_ITEMS, 30, replace=False)
            answer = ranked(client, {"user_id": user(number)}, rows.tolist(), explain=True)
            clicks = rng.random(30) < shop.click(number, rows)
            told.append(np.array([expected_of(answer, name) for name in ("click", "purchase")]))
            drawn.append(clicks)
            bought.append(clicks & (rng.random(30) < 0.4))
        click, purchase = np.concatenate(told, axis=1)
        for promised, came in ((click, np.concatenate(drawn)), (purchase, np.concatenate(bought))):
            for bin_ in np.array_split(np.argsort(promised), 5):
                spread = np.sqrt((promised[bin_] * (1 - promised[bin_])).sum())
                assert abs(came[bin_].sum() - promised[bin_].sum()) < 4 * spread
        assert np.ptp(click) > 0.3

    def test_of_new_items_and_strangers(self, client: TestClient, offline: Recommender) -> None:
        """By what they share with others."""
        new = {"title": "green lamp", "brand": "initech", "category": "lamp", "price": 30.0}
        body = {"candidates": [new, item_id(4), new], "history": [], "explain": True}
        first, _, second = sorted(
            post(client, "/rank", body)["items"], key=lambda item: item["candidate"]
        )
        assert first["explanation"]["expected"] == pytest.approx(second["explanation"]["expected"])
        assert 0 < first["explanation"]["expected"]["click"] < 1
        added = {**new, "item_id": "lamp-new"}
        assert client.post("/items", json=added).status_code == 200
        found = ranked(client, {"history": []}, [], candidates=["lamp-new"], explain=True)
        assert expected_of(found, "click") == pytest.approx(
            [first["explanation"]["expected"]["click"]], abs=0.02
        )

    def test_of_an_erased_user_are_a_strangers(self, client: TestClient) -> None:
        rows = [5, 9, 77]

        def told(who: str) -> list[float]:
            return expected_of(ranked(client, {"user_id": who}, rows, explain=True), "click")

        before = told(user(8))
        assert client.delete(f"/users/{user(8)}").status_code == 200
        assert told(user(8)) == told("stranger") != before


class TestOrder:
    @pytest.fixture
    def serve_settings(self, serve_settings: dict[str, Any]) -> dict[str, Any]:
        return {**serve_settings, "objectives": {"cart": "revenue"}}

    def test_is_by_the_objective(self, client: TestClient) -> None:
        worth = {
            "click": lambda e: e["click"], "purchase": lambda e: e["purchase"],
            "revenue": lambda e: e["purchase"] * e["value"],
            "dwell": lambda e: e["click"] * e["dwell_ms"],
        }  # fmt: skip
        who = {"user_id": user(1), "k": 12, "explain": True}
        plain = post(client, "/recommend", who)
        assert plain == post(client, "/recommend", who | {"objective": "relevance"}) | {
            "request_id": plain["request_id"]
        }
        for objective, value in worth.items():
            for path in ("/recommend", "/rank"):
                body = who | {"objective": objective}
                if path == "/rank":
                    body["candidates"] = [item_id(row) for row in range(40)]
                items = post(client, path, body)["items"]
                scores = [item["score"] for item in items]
                found = [value(item["explanation"]["expected"]) for item in items]
                assert scores == pytest.approx(found, rel=1e-5)
                assert scores == sorted(scores, reverse=True) and len(set(scores)) > 1
                assert [item["item_id"] for item in items] != ids(plain)

    def test_request_over_arm_over_placement(
        self, client: TestClient, service: Service, bundle: Path
    ) -> None:
        def list_of(**more: Any) -> list[str]:
            return ids(post(client, "/recommend", {"user_id": user(1), "k": 9} | more))

        relevance, purchase = list_of(), list_of(objective="purchase")
        revenue = list_of(objective="revenue", placement="cart")
        assert len({*map(tuple, (relevance, purchase, revenue))}) == 3
        assert list_of(placement="cart") == revenue
        assert list_of(placement="cart", objective="relevance") == relevance
        one, version = arm("one", objective={"purchase": 2.0}), version_in(bundle)
        assert client.portal is not None
        client.portal.call(service.load, bundle, version, [one])
        assert list_of() == list_of(placement="cart") == purchase
        (told,) = client.get("/model").json()["arms"]
        assert told["objective"] == {"purchase": 2.0}

    def test_rules_hold(self, client: TestClient) -> None:
        asked = {"user_id": user(2), "k": 10, "objective": "click"}
        first = ids(post(client, "/recommend", asked))
        capped = post(client, "/recommend", asked | {"max_per_category": 1, "exclude": first[:1]})
        things = [item["title"].split()[1] for item in capped["items"]]
        assert first[0] not in ids(capped) and len(things) == len(set(things)) == 5
        scores = [item["score"] for item in capped["items"]]
        assert scores == sorted(scores, reverse=True)
        assert ids(post(client, "/recommend", asked | {"diversity": 0.9})) != first

    def test_draws_are_from_what_items_are_worth_and_the_log_tells_relevance(
        self, client: TestClient, service: Service, bundle: Path, recipe: Recipe
    ) -> None:
        rows = list(range(9))
        relevance = ranked(client, {"user_id": user(4)}, rows)["items"]
        clicks = ranked(client, {"user_id": user(4)}, rows, objective="click")["items"]
        drawn = arm("d", objective="click", exploration="plackett_luce", temperature=0.1)
        assert client.portal is not None
        client.portal.call(service.load, bundle, version_in(bundle), [drawn])
        body = {"user_id": user(4), "candidates": [item_id(row) for row in rows]}
        answer = post(client, "/rank", body | {"placement": "home/top", "shown": 9}, "mine")
        catalogue = post(client, "/recommend", {"user_id": user(4), "k": 40, "shown": 40}, "whole")
        service.close()
        files = finished(Feedback.of(recipe.root).impressions)
        logged = pl.concat([pl.DataFrame(pq.read_table(path)) for path in files])
        mine = logged.filter(pl.col(Col.request) == "mine")
        assert mine[Col.item].to_list() == ids(answer)
        assert set(mine[Col.placement]) == {"home/top"}
        score_of = {item["item_id"]: item["score"] for item in relevance}
        assert mine[Col.score].to_list() == [score_of[item] for item in mine[Col.item]]
        left = {item["item_id"]: np.exp(item["score"] / 0.1) for item in clicks}
        for item, chance in mine.select(Col.item, Col.propensity).iter_rows():
            assert chance == pytest.approx(left[item] / sum(left.values()), rel=1e-4)
            del left[item]
        whole = logged.filter(pl.col(Col.request) == "whole")
        assert whole[Col.item].to_list() == ids(catalogue)
        assert whole[Col.placement].null_count() == whole.height
        assert (whole[Col.propensity] <= 1).all() and whole[Col.propensity].min() < 0.2

    def test_over_grpc(self, client: TestClient, service: Service) -> None:
        body = {"user_id": user(1), "objective": "dwell", "placement": "cart", "explain": True}
        expected = post(client, "/recommend", body)
        for channel in channel_to(client, service):
            found = fields_of(RankingStub(channel).Recommend(message_of("Recommend", body)))
        assert found == {key: expected[key] for key in found}


class TestRefusals:
    """Of a bundle without heads."""

    @pytest.fixture
    def bundle(self, other_bundle: Path) -> Path:
        return other_bundle

    def test_a_request(self, client: TestClient) -> None:
        answer = post(client, "/recommend", {"user_id": "u", "explain": True})
        assert "expected" not in answer["items"][0]["explanation"]
        for path, more in (("/recommend", {}), ("/rank", {"candidates": [item_id(1)]})):
            refused = client.post(path, json={"user_id": "u", "objective": "click", **more})
            assert refused.status_code == 422
            (problem,) = refused.json()["detail"]
            assert problem["field"] == "objective" and "use relevance" in problem["msg"]

    def test_an_arm(self, client: TestClient, service: Service, bundle: Path) -> None:
        assert client.portal is not None
        wrong = arm("default", objective="click")
        client.portal.call(service.load, bundle, version_in(bundle), [wrong])
        assert "has no outcome heads" in client.get("/model").json()["failed_update"]
        assert client.get("/model").json()["arms"][0]["objective"] is None

    @pytest.mark.parametrize("key", ["objective", "objectives"])
    def test_a_recipe(self, recipe: Recipe, bundle: Path, key: str) -> None:
        asked = {"objective": "click"} if key == "objective" else {"objectives": {"cart": "click"}}
        serve = Serve.model_validate(recipe.serve.model_dump() | asked)
        with pytest.raises(BundleError, match=rf"serve\.{key}.*it has no outcome heads"):
            served_bundle(recipe.model_copy(update={"serve": serve}), bundle)
