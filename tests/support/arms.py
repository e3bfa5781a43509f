"""Arms for tests, and requests that are followed by their ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bundles import version_in
from fastapi.testclient import TestClient

from serve.models.arms import ResolvedArm

USER = {"user_id": "u"}


def arm(name: str, bundle: Path | None = None, **rest: Any) -> ResolvedArm:
    """An arm with the bundle that the service is started with, or another one."""
    own = {} if bundle is None else {"bundle": str(bundle), "version": version_in(bundle)}
    return ResolvedArm(name=name, **own, **rest)


def post(client: TestClient, path: str, body: Any, request_id: str | None = None) -> dict[str, Any]:
    headers = {} if request_id is None else {"X-Request-Id": request_id}
    response = client.post(path, json=body, headers=headers)
    assert response.status_code == 200, response.text
    return dict(response.json())
