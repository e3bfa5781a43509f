"""Calls of the HTTP application in this process."""

from __future__ import annotations

from typing import Any

from bundles import item_id
from fastapi.testclient import TestClient

SESSION = [{"item_id": item_id(3)}, {"item_id": item_id(40), "event_type": "click"}]
#: An item of a category that no bundle holds.
LAMP = {
    "item_id": "new-lamp", "title": "green lamp", "brand": "acme", "category": "tent", "price": 9.0,
}  # fmt: skip


def post(client: TestClient, path: str, body: Any, status: int = 200) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    return dict(response.json())


def refused_at(answer: dict[str, Any]) -> list[str]:
    return [problem["field"] for problem in answer["detail"]]


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]
