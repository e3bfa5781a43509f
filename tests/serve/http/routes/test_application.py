"""Health, model, documentation, and what no path takes."""

from __future__ import annotations

import json
from pathlib import Path

from bundles import item_id
from fastapi.testclient import TestClient


def test_health_and_model(client: TestClient, bundle: Path) -> None:
    version = json.loads((bundle / "bundle.json").read_text())["version"]
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok", "model_version": version}
    model = client.get("/model").json()
    assert (model["version"], model["num_items"]) == (version, 300)
    assert model["info"]["name"] == "tiny"
    assert model["failed_update"] is None


def test_documentation(client: TestClient) -> None:
    assert client.get("/docs").status_code == 200
    schema = client.get("/openapi.json").json()
    assert {"/recommend", "/rank", "/events", "/healthz", "/readyz", "/model"} <= schema[
        "paths"
    ].keys()
    undescribed = [
        f"{model}.{field}"
        for model, definition in schema["components"]["schemas"].items()
        for field, spec in definition.get("properties", {}).items()
        # A field that is another model is described there.
        if not {"description", "$ref"} & spec.keys() and field not in ("items", "detail")
        and model not in ("HTTPValidationError", "ValidationError")
    ]  # fmt: skip
    assert undescribed == []


def test_wrong_method_and_path(client: TestClient) -> None:
    for response, status in ((client.get("/recommend"), 405), (client.post("/nothing"), 404)):
        assert response.status_code == status
        (problem,) = response.json()["detail"]
        assert problem["field"] == "body" and problem["msg"]
    assert client.get("/recommend").headers["allow"] == "POST"


def test_head_is_answered_as_get_is_without_the_body(client: TestClient) -> None:
    for path in ("/healthz", "/readyz", "/model", "/openapi.json", "/docs", f"/items/{item_id(1)}"):
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == got.headers["content-length"] or path == "/model"
    assert client.head("/recommend").status_code == 405


def test_nothing_leads_to_another_host(client: TestClient) -> None:
    for path in ("/recommend/", "/healthz/", "/docs/", "/users/erase/"):
        for method in ("GET", "POST"):
            answer = client.request(
                method, path, headers={"Host": "evil.example"}, follow_redirects=False
            )
            assert answer.status_code in (404, 405, 422), path
            assert "evil.example" not in str(answer.headers) + answer.text


def test_without_keys_there_are_no_user_tokens(client: TestClient) -> None:
    answer = client.post("/users/token", json={"user_id": "u"})
    assert answer.status_code == 404
    assert "serve.access.keys" in answer.json()["detail"][0]["msg"]
    assert "/users/token" not in client.get("/openapi.json").json()["paths"]
