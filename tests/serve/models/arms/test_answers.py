"""Several arms behind one service: each answers with its bundle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from arms import USER, arm, post
from bundles import item_id, version_in
from fastapi.testclient import TestClient
from http_calls import ids
from monitoring import Tally

from serve.core.middleware import NONE
from serve.core.service import Service


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
