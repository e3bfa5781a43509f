"""Rate limits of keys and users."""

from __future__ import annotations

from pathlib import Path

import pytest
from access_keys import OWN, status_of
from bundles import make_recipe
from fastapi.testclient import TestClient
from services import make_service

from recsys.config import Recipe
from recsys.errors import RecipeError
from serve.access.rate_limit import TokenBucket
from serve.http.routes import build_http


class TestRate:
    def test_a_bucket_fills_at_its_rate(self) -> None:
        bucket = TokenBucket(rate=2.0, tokens=2.0, at=0.0)
        assert [bucket.take(0.0) for _ in range(3)] == [0.0, 0.0, 0.5]
        assert bucket.take(0.5) == 0.0
        assert bucket.take(0.5) == pytest.approx(0.5)
        assert [bucket.take(100.0) for _ in range(5)] == [0.0] * 4 + [pytest.approx(0.5)]

    def test_a_slow_rate_still_lets_one_through(self) -> None:
        bucket = TokenBucket(rate=0.1, tokens=0.2, at=0.0)
        assert bucket.take(0.0) == pytest.approx(8.0)
        assert bucket.take(8.0) == pytest.approx(0.0, abs=1e-9)

    def test_who_asks_too_often_is_told_when_to_come_again(
        self, texts: dict[str, str], recipe: Recipe, bundle: Path
    ) -> None:
        settings = recipe.serve.access.model_copy(update={"requests_per_s": 2.0})
        limited = recipe.serve.model_copy(update={"access": settings})
        service = make_service(recipe.model_copy(update={"serve": limited}))
        client = TestClient(build_http(service))
        codes = [status_of(client, "/model", texts["monitor"]) for _ in range(12)]
        assert codes[:4] == [503] * 4  # no model yet; it is let through
        assert 429 in codes
        answer = client.get("/model", headers={"X-API-Key": texts["monitor"]})
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        # Others have buckets of their own, and the service's own key has none.
        assert status_of(client, "/recommend", texts["recommend"]) == 503
        assert {status_of(client, "/model", OWN) for _ in range(12)} == {503}


def test_a_rate_needs_keys(tmp_path: Path, language_model: Path) -> None:
    for settings in ({"requests_per_s": 3}, {"origins": ["*"]}, {"origins": ["https://a/b"]}):
        with pytest.raises(RecipeError):
            make_recipe(tmp_path, language_model, serve={"access": settings})
