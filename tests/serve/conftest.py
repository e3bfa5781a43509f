from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from bundles import KEY, make_bundle, make_language_model, make_recipe, version_in
from fastapi.testclient import TestClient
from monitoring import Tally
from redis_server import make_server  # noqa: F401 - a fixture
from services import Clock, make_service

import benchmarks.ports
from recsys.config import Recipe
from serve.core.service import Service
from serve.http.routes import build_http
from serve.ray.ports import METRICS_PORT, STATS_PORT


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """What a test sets for Ray must not reach the tests after it; no other service is met."""
    names = (METRICS_PORT[0], STATS_PORT[0])
    with patch.dict(
        os.environ, dict(zip(names, map(str, benchmarks.ports.free_ports(2)), strict=True))
    ):
        yield


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_language_model(tmp_path_factory.mktemp("language"))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, language_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    return make_bundle(folder / "one", make_recipe(folder, language_model), seed=1).folder


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory: pytest.TempPathFactory, language_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    return make_bundle(folder / "two", make_recipe(folder, language_model), seed=2).folder


@pytest.fixture
def serve_settings() -> dict[str, Any]:
    """The recipe's `serve`, for tests to override."""
    return {"max_k": 50, "default_k": 5, "max_candidates": 40}


@pytest.fixture
def recipe(
    tmp_path: Path,
    language_model: Path,
    serve_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Recipe:
    monkeypatch.setenv("RAYCOMMEND_PSEUDONYM_KEY", KEY)
    return make_recipe(tmp_path / "run", language_model, serve=serve_settings)


@pytest.fixture
def clock() -> Clock:
    """Of the service; a test may set it."""
    return Clock()


@pytest.fixture
def metrics() -> Tally:
    return Tally()


@pytest.fixture
def service(recipe: Recipe, metrics: Tally, clock: Clock) -> Service:
    """Without a model."""
    return make_service(recipe, metrics, clock=clock)


@pytest.fixture
def client(service: Service, bundle: Path) -> Iterator[TestClient]:
    """The whole HTTP application in this process, without Ray."""
    with TestClient(build_http(service), raise_server_exceptions=False) as client:
        assert client.portal is not None
        client.portal.call(service.load, bundle, version_in(bundle))
        yield client


@pytest.fixture
def free_ports(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Free ports of HTTP and gRPC, and of HAProxy, set for it."""
    names = ("http", "grpc", "RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT")
    ports = dict(zip(names, benchmarks.ports.free_ports(len(names)), strict=True))
    for name in names[2:]:
        monkeypatch.setenv(name, str(ports[name]))
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    return ports


@pytest.fixture
def config(
    tmp_path: Path,
    language_model: Path,
    free_ports: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A recipe's file, with free ports and a registry of its own."""
    monkeypatch.setenv("RAYCOMMEND_PSEUDONYM_KEY", KEY)
    registry = {"registry": str(tmp_path / "registry")}
    ports = {"port": free_ports["http"]}
    recipe = make_recipe(tmp_path / "run", language_model, promote=registry, serve=ports)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.resolved()))
    return path
