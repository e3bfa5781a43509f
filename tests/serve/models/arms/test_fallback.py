"""An arm that fails: another one stands in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from arms import USER, arm, post
from bundles import KEY, item_id, version_in
from fastapi.testclient import TestClient
from monitoring import Tally
from services import break_arm

from recsys.data.pseudonyms import pseudonym
from serve.core.service import Service


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
