"""Several arms behind one service: who is answered by which, drawn lists, fallback and shadows."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from bundles import (
    KEY,
    NUM_ITEMS,
    diverge,
    item_id,
    make_bundle,
    make_items,
    make_recipe,
    version_in,
)
from fastapi.testclient import TestClient
from monitoring import Tally
from services import Clock, break_arm, make_service

from recsys.config import Recipe
from recsys.data.feedback import Feedback, finished
from recsys.data.pseudonyms import pseudonym
from recsys.recommender import Recommender
from recsys.schema import Col
from serve.core.middleware import NONE
from serve.core.service import Service
from serve.http.routes import build_http
from serve.models.arms import Arms, ResolvedArm, ServedArm, ServedBundle, hash_fraction
from serve.ranking import shadow
from serve.schemas.requests import RecommendRequest

USER = {"user_id": "u"}
NUM_USERS = 4000


def arm(name: str, bundle: Path | None = None, **rest: Any) -> ResolvedArm:
    """An arm with the bundle that the service is started with, or another one."""
    own = {} if bundle is None else {"bundle": str(bundle), "version": version_in(bundle)}
    return ResolvedArm(name=name, **own, **rest)


@pytest.fixture
def load(client: TestClient, service: Service, bundle: Path) -> Callable[..., None]:
    """Serve some arms."""

    def loading(*arms: ResolvedArm) -> None:
        assert client.portal is not None
        client.portal.call(service.load, bundle, version_in(bundle), arms)

    return loading


def post(client: TestClient, path: str, body: Any, request_id: str | None = None) -> dict[str, Any]:
    headers = {} if request_id is None else {"X-Request-Id": request_id}
    response = client.post(path, json=body, headers=headers)
    assert response.status_code == 200, response.text
    return dict(response.json())


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


@pytest.fixture(scope="module")
def served(bundle: Path) -> ServedBundle:
    model = Recommender.load(bundle)
    return ServedBundle(bundle, model, "", model)


class TestAssignment:
    @staticmethod
    def arms(served: ServedBundle, *weights: float, salt: str = "s") -> Arms:
        names = "abcdef"
        return Arms(
            [ServedArm(arm(names[n], weight=w), served) for n, w in enumerate(weights)], salt
        )

    @staticmethod
    def users() -> list[str]:
        return [pseudonym(f"user-{number}", KEY.encode()) for number in range(NUM_USERS)]

    def whose(self, arms: Arms) -> list[str]:
        return [arms.of(user).name for user in self.users()]

    def test_shares_are_the_weights(self, served: ServedBundle) -> None:
        weights = (5.0, 0.0, 3.0, 2.0)
        counts = Counter(self.whose(self.arms(served, *weights)))
        assert "b" not in counts
        for name, weight in zip("abcd", weights, strict=True):
            share = weight / sum(weights)
            # Five standard deviations of the binomial distribution.
            bound = 5 * np.sqrt(NUM_USERS * share * (1 - share))
            assert abs(counts[name] - NUM_USERS * share) <= bound

    def test_users_stay_and_another_salt_moves_them(self, served: ServedBundle) -> None:
        once = self.whose(self.arms(served, 1, 1))
        assert once == self.whose(self.arms(served, 2, 2))
        moved = np.mean(np.array(once) != self.whose(self.arms(served, 1, 1, salt="t")))
        assert 0.4 < moved < 0.6

    def test_numbers_lie_in_the_interval(self) -> None:
        numbers = [hash_fraction(user, "s") for user in self.users()]
        assert min(numbers) >= 0 and max(numbers) < 1
        assert hash_fraction("u", "s") == 0.69514203150176, "pinned: a release must move nobody"

    def test_of_two_arms_exactly_the_share_that_changes_moves(self, served: ServedBundle) -> None:
        before = self.whose(self.arms(served, 0.9, 0.1))
        after = self.whose(self.arms(served, 0.8, 0.2))
        moves = Counter(zip(before, after, strict=True))
        assert moves["b", "a"] == 0
        bound = 5 * np.sqrt(NUM_USERS * 0.1 * 0.9)
        assert abs(moves["a", "b"] - 0.1 * NUM_USERS) <= bound

    def test_what_a_neighbour_loses_moves_nobody_else(self, served: ServedBundle) -> None:
        before = self.whose(self.arms(served, 0.8, 0.1, 0.1))
        after = self.whose(self.arms(served, 0.8, 0.05, 0.15))
        assert set(zip(before, after, strict=True)) - {("a", "a"), ("b", "b"), ("c", "c")} == {
            ("b", "c")
        }

    def test_replicas_agree_by_the_pseudonym_alone(
        self, recipe: Recipe, service: Service, bundle: Path, other_bundle: Path
    ) -> None:
        """Another replica, started later, on its own store, says the same of every user."""
        other = make_service(recipe)
        arms = [arm("a", weight=3), arm("b", other_bundle)]
        for each in (service, other):
            asyncio.run(each.load(bundle, version_in(bundle), arms))
        for number in range(40):
            request = RecommendRequest(user_id=f"user-{number}", k=1)
            told = {
                json.loads(asyncio.run(each.recommend(request)))["arm"]
                for each in (service, other)
                for _ in range(2)
            }
            assert told == {service.arms.of(pseudonym(f"user-{number}", KEY.encode())).name}


class TestAnswers:
    def test_without_arms_there_is_one(self, client: TestClient, bundle: Path) -> None:
        answer = post(client, "/recommend", USER)
        assert (answer["arm"], answer["fallback"]) == ("default", False)
        (told,) = client.get("/model").json()["arms"]
        assert (told["name"], told["version"]) == ("default", version_in(bundle))

    def test_each_answers_with_its_bundle(
        self, client: TestClient, load: Callable[..., None], bundle: Path, other_bundle: Path,
        metrics: Tally,
    ) -> None:  # fmt: skip
        load(arm("a"), arm("b", other_bundle))
        versions = {"a": version_in(bundle), "b": version_in(other_bundle)}
        seen: Counter[str] = Counter()
        for number in range(30):
            answer = post(client, "/recommend", {"user_id": f"user-{number}"})
            again = post(client, "/rank", {"user_id": f"user-{number}", "candidates": [item_id(1)]})
            assert answer["arm"] == again["arm"]
            assert answer["model_version"] == again["model_version"] == versions[answer["arm"]]
            seen[answer["arm"]] += 1
        assert min(seen["a"], seen["b"]) > 5
        assert metrics.counts["answers_total", "popularity", "a", NONE] == 2 * seen["a"]
        told = client.get("/model").json()
        assert {each["name"]: each["version"] for each in told["arms"]} == versions
        assert told["version"] == versions["a"]

    def test_visitors_are_drawn_by_the_request(
        self, client: TestClient, load: Callable[..., None]
    ) -> None:
        load(arm("a"), arm("b"))
        session = {"history": [{"item_id": item_id(3)}], "k": 1}
        arms = [post(client, "/recommend", session, f"r{number}")["arm"] for number in range(30)]
        again = [post(client, "/recommend", session, f"r{number}")["arm"] for number in range(30)]
        assert arms == again and set(arms) == {"a", "b"}

    def test_one_bundle_is_loaded_once(
        self, load: Callable[..., None], service: Service, other_bundle: Path
    ) -> None:
        load(arm("a"), arm("b"), arm("c", other_bundle), arm("d", other_bundle, shadow=True))
        assert len(service.arms.bundles) == 2

    def test_an_added_item_is_in_every_arm(
        self, client: TestClient, load: Callable[..., None], other_bundle: Path
    ) -> None:
        load(arm("a"), arm("b", other_bundle))
        item = {"item_id": "new-lamp", "title": "green lamp", "category": "tent", "price": 9}
        assert post(client, "/items", item)["stored"] == 1
        found = {}
        for number in range(20):
            body = {"user_id": f"user-{number}", "filters": {"category": ["tent"]}}
            answer = post(client, "/recommend", body)
            found[answer["arm"]] = ids(answer)
        assert found == {"a": ["new-lamp"], "b": ["new-lamp"]}
        event = {"user_id": "u", "item_id": "new-lamp", "event_type": "view"}
        assert post(client, "/events", event)["unknown_items"] == []
        # A bundle that comes later reads its text too.
        load(arm("b", other_bundle))
        assert client.get("/model").json()["num_added"] == 1


class TestUpdates:
    def test_a_broken_bundle_keeps_that_arm_s_last_good_one(
        self, client: TestClient, load: Callable[..., None], bundle: Path, other_bundle: Path,
        language_model: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        load(arm("a"), arm("b", other_bundle))
        third = make_bundle(
            tmp_path / "third", make_recipe(tmp_path, language_model), seed=3
        ).folder
        diverged = diverge(shutil.copytree(other_bundle, tmp_path / "diverged"))
        load(arm("a", third, weight=7), arm("b", diverged))
        told = client.get("/model").json()
        assert [each["version"] for each in told["arms"]] == [
            version_in(third),
            version_in(other_bundle),
        ]
        assert told["arms"][0]["weight"] == 7
        assert told["failed_update"].startswith("arm b: ") and "finite" in told["failed_update"]
        load(arm("a"), arm("b", other_bundle))
        assert client.get("/model").json()["failed_update"] is None

    def test_a_new_arm_that_is_broken_changes_nothing(
        self, client: TestClient, load: Callable[..., None], other_bundle: Path, tmp_path: Path
    ) -> None:
        load(arm("a"))
        diverged = diverge(shutil.copytree(other_bundle, tmp_path / "diverged"))
        load(arm("a", other_bundle), arm("b", diverged))
        told = client.get("/model").json()
        assert [each["name"] for each in told["arms"]] == ["a"]
        assert told["failed_update"].startswith("arm b: ")
        assert post(client, "/recommend", USER)["arm"] == "a"


class TestExploration:
    @pytest.mark.parametrize(
        "way",
        [
            {"exploration": "plackett_luce", "temperature": 1.0},
            {"exploration": "epsilon", "epsilon": 0.5},
        ],
        ids=["plackett_luce", "epsilon"],
    )
    def test_lists_are_drawn_and_their_propensities_logged(
        self, client: TestClient, load: Callable[..., None], service: Service, recipe: Recipe,
        bundle: Path, way: dict[str, Any], clock: Clock,
    ) -> None:  # fmt: skip
        clock.now = 1_800_000_000_000_000
        plain = ids(post(client, "/recommend", USER | {"k": 20}))
        load(arm("drawn", **way))
        filters = {"category": ["cup", "pen"]}
        requests = {
            "recommend": ("/recommend", USER | {"k": 20}),
            "filtered": ("/recommend", USER | {"filters": filters, "exclude": [plain[0]]}),
            "rank": ("/rank", USER | {"candidates": [item_id(row) for row in range(9)], "k": 4}),
        }
        answers = {name: post(client, *asked, name) for name, asked in requests.items()}
        for name, asked in requests.items():
            again = post(client, *asked, name)
            assert ids(again) == ids(answers[name]), "a retried request gets the same list"
        lists = {tuple(ids(post(client, *requests["recommend"], f"r{n}"))) for n in range(10)}
        assert len(lists) == 10
        assert len(set(ids(answers["recommend"]))) == 20
        assert all(
            " cup " in item["title"] or " pen " in item["title"]
            for item in answers["filtered"]["items"]
        )
        everything = post(client, "/rank", USER | {"candidates": requests["rank"][1]["candidates"]})
        scores = {item["item_id"]: item["score"] for item in everything["items"]}
        service.close()
        logged: dict[str, list[dict[str, Any]]] = {}
        for path in finished(Feedback.of(recipe.root).impressions):
            for row in pq.read_table(path).to_pylist():
                logged.setdefault(row[Col.request], []).append(row)
        for name, answer in answers.items():
            rows = logged[name][: len(answer["items"])]
            assert [row[Col.item] for row in rows] == ids(answer)
            assert {row[Col.arm] for row in rows} == {"drawn"}
            assert all(0 < row[Col.propensity] <= 1 for row in rows)
            assert min(row[Col.propensity] for row in rows) < 0.9
        # Of the few candidates of /rank: by hand, from the scores.
        left = dict(scores)
        for row in logged["rank"][:4]:
            item = row[Col.item]
            if "temperature" in way:
                weights = {name: np.exp(score) for name, score in left.items()}
                chance = weights[item] / sum(weights.values())
            else:
                is_best = item == max(left, key=left.__getitem__)
                chance = way["epsilon"] / len(left) + (1 - way["epsilon"]) * is_best
            assert row[Col.propensity] == pytest.approx(chance, rel=1e-4)
            del left[item]

    @pytest.mark.parametrize("asked", [{"diversity": 0.2}, {"max_per_category": 2}])
    def test_rules_that_rearrange_are_refused_to_everybody(
        self, client: TestClient, load: Callable[..., None], asked: dict[str, Any]
    ) -> None:
        load(arm("plain", weight=9), arm("drawn", exploration="epsilon", epsilon=0.1))
        for number in range(10):
            answer = client.post("/recommend", json={"user_id": f"user-{number}"} | asked)
            assert answer.status_code == 422
            (problem,) = answer.json()["detail"]
            assert problem["field"] == next(iter(asked)) and "leave it out" in problem["msg"]
        post(client, "/recommend", USER | {"diversity": 0.0, "exclude_owned": True})

    def test_what_is_owned_is_not_drawn(
        self, client: TestClient, load: Callable[..., None]
    ) -> None:
        load(arm("drawn", exploration="epsilon", epsilon=1.0))
        owned = [item_id(row) for row in range(0, 290)]
        session = [{"item_id": item, "event_type": "purchase"} for item in owned]
        for number in range(5):
            body = {"history": session, "k": 50, "exclude_owned": True}
            answer = post(client, "/recommend", body, f"r{number}")
            assert sorted(ids(answer)) == [item_id(row) for row in range(290, 299)]


class TestFallback:
    @pytest.fixture
    def user_of(self, service: Service) -> Callable[[str], dict[str, Any]]:
        def found(name: str) -> dict[str, Any]:
            users = (f"user-{number}" for number in range(1000))
            return {
                "user_id": next(
                    user
                    for user in users
                    if service.arms.of(pseudonym(user, KEY.encode())).name == name
                )
            }

        return found

    def test_another_arm_stands_in(
        self, client: TestClient, load: Callable[..., None], service: Service, metrics: Tally,
        other_bundle: Path, bundle: Path, user_of: Callable[[str], dict[str, Any]],
    ) -> None:  # fmt: skip
        load(arm("none", weight=0), arm("s", shadow=True), arm("a"), arm("b", other_bundle))
        body = user_of("b")
        assert post(client, "/recommend", body)["fallback"] is False
        break_arm(service, "b")
        for path, more in (("/recommend", {}), ("/rank", {"candidates": [item_id(1)]})):
            answer = post(client, path, body | more)
            assert (answer["arm"], answer["fallback"]) == ("a", True)
            assert answer["model_version"] == version_in(bundle)
        assert metrics.counts["answers_total", "popularity", "a", "b"] == 2
        assert post(client, "/recommend", user_of("a"))["fallback"] is False

    def test_scores_that_are_not_finite_are_no_answer(
        self, client: TestClient, load: Callable[..., None], service: Service,
        other_bundle: Path, user_of: Callable[[str], dict[str, Any]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        load(arm("a"), arm("b", other_bundle))
        drawn = arm("c", other_bundle, exploration="epsilon", epsilon=0.5)
        for every in ([arm("a"), arm("b", other_bundle)], [arm("a"), drawn]):
            load(*every)
            name = every[1].name
            model = next(e for e in service.arms.every if e.name == name).model
            part = model.scorer.item_part.clone()
            part[5] = float("nan")
            diverged = replace(model.scorer, item_part=part)
            with monkeypatch.context() as patched:
                patched.setattr(model, "scorer", diverged)
                for path, more in (
                    ("/recommend", {"k": 50}),
                    ("/rank", {"candidates": [item_id(1), item_id(5)]}),
                ):
                    answer = post(client, path, user_of(name) | more)
                    assert (answer["arm"], answer["fallback"]) == ("a", True)

    def test_nobody_else_is_an_error_as_before(
        self, client: TestClient, load: Callable[..., None], service: Service, metrics: Tally
    ) -> None:
        load(arm("a"), arm("b", weight=0), arm("c", shadow=True))
        break_arm(service, "a")
        assert client.post("/recommend", json=USER).status_code == 500
        assert metrics.counts["requests_total", "/recommend", "500"] == 1

    def test_a_wrong_request_is_refused_by_the_asker_s_arm(
        self, client: TestClient, load: Callable[..., None], metrics: Tally
    ) -> None:
        load(arm("a"), arm("b"))
        session = [{"item_id": "a", "event_type": "stare"}]
        answer = client.post("/recommend", json={"history": session})
        assert answer.status_code == 422
        assert not any(key[0] == "answers_total" for key in metrics.counts)


class TestShadow:
    @pytest.fixture
    def serve_settings(self, serve_settings: dict[str, Any]) -> dict[str, Any]:
        """Every comparison is logged."""
        return {**serve_settings, "log_requests": 1.0}

    @pytest.fixture(autouse=True)
    def _capture(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "ray.serve")

    @pytest.fixture
    def compared(self, metrics: Tally) -> Callable[..., None]:
        def waiting(number: int, name: str = "s", result: str = "compared") -> None:
            deadline = time.monotonic() + 20
            while metrics.counts["shadow_lists_total", name, result] < number:
                assert time.monotonic() < deadline, metrics.counts
                time.sleep(0.01)

        return waiting

    def test_the_same_model_agrees_and_another_does_less(
        self, client: TestClient, load: Callable[..., None], service: Service, metrics: Tally,
        bundle: Path, other_bundle: Path, compared: Callable[..., None],
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        load(arm("a"), arm("same", shadow=True), arm("s", other_bundle, shadow=True))
        answer = post(client, "/recommend", USER | {"k": 20, "explain": True}, "mine")
        post(client, "/rank", USER | {"candidates": [item_id(row) for row in range(30)], "k": 5})
        assert answer["model_version"] == version_in(bundle)
        compared(2)
        assert metrics.values["shadow_overlap", "same"] == [1, 1]
        assert metrics.values["shadow_rank_biased_overlap", "same"] == pytest.approx([1, 1])
        assert max(metrics.values["shadow_overlap", "s"]) < 1
        assert all(took > 0 for took in metrics.values["shadow_seconds", "s"])
        lines = [vars(each) for each in caplog.records if each.getMessage() == "shadow"]
        (line,) = [each for each in lines if (each["request_id"], each["shadow"]) == ("mine", "s")]
        assert line["arm"] == "a" and line["shadow_version"] == version_in(other_bundle)
        assert line["overlap"] == metrics.values["shadow_overlap", "s"][0]
        assert line["milliseconds"] > 0

    def test_it_answers_nobody_whatever_its_weight(
        self, client: TestClient, load: Callable[..., None], other_bundle: Path
    ) -> None:
        load(arm("a"), arm("s", other_bundle, shadow=True, weight=1000))
        arms = {post(client, "/recommend", {"user_id": f"u{n}", "k": 1})["arm"] for n in range(30)}
        assert arms == {"a"}

    def test_a_slow_one_is_left_behind_and_costs_no_answer(
        self, client: TestClient, load: Callable[..., None], metrics: Tally, service: Service,
        other_bundle: Path, compared: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        hangs, goes_on = threading.Event(), threading.Event()

        class Slow(Recommender):
            def recommend(self, *arguments: Any, **options: Any) -> Any:
                hangs.set()
                assert goes_on.wait(60)
                return super().recommend(*arguments, **options)

        load(arm("a"), arm("s", other_bundle, shadow=True))
        service.arms.shadows[0].served.model.__class__ = Slow
        post(client, "/recommend", USER)
        assert hangs.wait(20)
        for _ in range(shadow.MAX_WAITING + 3):
            assert post(client, "/recommend", USER)["arm"] == "a"
        assert metrics.counts["shadow_lists_total", "s", "dropped"] == 3
        goes_on.set()
        compared(shadow.MAX_WAITING + 1)

    def test_one_that_fails_is_counted_and_the_next_is_compared(
        self, client: TestClient, load: Callable[..., None], service: Service,
        other_bundle: Path, compared: Callable[..., None],
    ) -> None:  # fmt: skip
        load(arm("a"), arm("bad", other_bundle, shadow=True), arm("s", shadow=True))
        break_arm(service, "bad")
        assert post(client, "/recommend", USER)["items"]
        compared(1, "bad", "failed")
        compared(1)

    def test_candidates_are_looked_up_in_its_own_catalogue(
        self, client: TestClient, load: Callable[..., None], service: Service,
        compared: Callable[..., None], tmp_path: Path, language_model: Path,
    ) -> None:  # fmt: skip
        backwards = make_bundle(
            tmp_path / "backwards", make_recipe(tmp_path, language_model), seed=2,
            items=make_items().reverse(),
        ).folder  # fmt: skip
        asked: list[list[int]] = []

        class Noting(Recommender):
            def rank(self, history: Any, rows: Any, new: Any = None) -> Any:
                asked.append(rows.tolist())
                return super().rank(history, rows, new)

        load(arm("a"), arm("s", backwards, shadow=True))
        service.arms.shadows[0].served.model.__class__ = Noting
        post(client, "/rank", USER | {"candidates": [item_id(1), item_id(3)]})
        compared(1)
        assert asked == [[NUM_ITEMS - 2, NUM_ITEMS - 4]]

    def test_new_items_are_not_compared(
        self, client: TestClient, load: Callable[..., None], metrics: Tally,
        compared: Callable[..., None],
    ) -> None:  # fmt: skip
        load(arm("a"), arm("s", shadow=True))
        post(client, "/rank", USER | {"candidates": [{"title": "red cup"}, item_id(1)]})
        post(client, "/recommend", USER)
        compared(1)
        assert (
            sum(metrics.counts[key] for key in metrics.counts if key[0] == "shadow_lists_total")
            == 1
        )


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert "shadow" not in {thread.name for thread in threading.enumerate()}


def test_the_end_of_the_application_ends_the_shadows(service: Service, bundle: Path) -> None:
    with TestClient(build_http(service)) as client:
        arms = [arm("a"), arm("s", shadow=True)]
        client.portal.call(service.load, bundle, version_in(bundle), arms)  # type: ignore[union-attr]
        post(client, "/recommend", USER)
        assert "shadow" in {thread.name for thread in threading.enumerate()}
    assert "shadow" not in {thread.name for thread in threading.enumerate()}
