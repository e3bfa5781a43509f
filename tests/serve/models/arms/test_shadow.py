"""Shadow arms: compared with what was answered, and answering nobody."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from arms import USER, arm, post
from bundles import NUM_ITEMS, item_id, make_bundle, make_items, make_recipe, version_in
from fastapi.testclient import TestClient
from monitoring import Tally
from services import break_arm

from recsys.recommender import Recommender
from serve.core.service import Service
from serve.http.routes import build_http
from serve.ranking import shadow


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


def test_the_end_of_the_application_ends_the_shadows(service: Service, bundle: Path) -> None:
    with TestClient(build_http(service)) as client:
        arms = [arm("a"), arm("s", shadow=True)]
        client.portal.call(service.load, bundle, version_in(bundle), arms)  # type: ignore[union-attr]
        post(client, "/recommend", USER)
        assert "shadow" in {thread.name for thread in threading.enumerate()}
    assert "shadow" not in {thread.name for thread in threading.enumerate()}
