"""Lists that are drawn, and their propensities."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from arms import USER, arm, post
from bundles import item_id
from fastapi.testclient import TestClient
from http_calls import ids
from services import Clock

from recsys.config import Recipe
from recsys.data.feedback import Feedback, finished
from recsys.schema import Col
from serve.core.service import Service


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
