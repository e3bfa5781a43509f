"""API keys for tests, and one request of every path that takes one."""

from __future__ import annotations

from pathlib import Path

from bundles import KEY
from fastapi.testclient import TestClient

from serve.access.key_file import KeyFile, own_key
from serve.schemas.callers import Right

#: The service's own key.
OWN = own_key(KEY.encode())
#: The web page that may call from a browser.
SHOP = "https://shop.example"
BODIES = {
    "/recommend": {"user_id": "u"},
    "/rank": {"user_id": "u", "candidates": ["item-0001"]},
    "/events": {"user_id": "u", "item_id": "item-0001", "event_type": "view"},
    "/items": {"item_id": "new", "title": "a lamp"},
    "/users/erase": {"user_id": "u"},
    "/users/token": {"user_id": "u"},
}
#: A path of those that have an id at their end.
WITH_ID = {"/items/": "/items/item-0001", "/users/": "/users/u"}


def add_key(path: Path, name: str, *rights: Right) -> str:
    """Add a key to a file; the key's text."""
    file = KeyFile.read(path) if path.exists() else KeyFile()
    file, text = file.with_key(name, rights)
    file.write(path)
    return text


def status_of(client: TestClient, path: str, key: str | None) -> int:
    """The status of a request of a path with a key."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    if (body := BODIES.get(path.removesuffix("%0A"))) is not None:
        return client.post(path, json=body, headers=headers).status_code
    if path in WITH_ID:
        return client.delete(WITH_ID[path], headers=headers).status_code
    return client.get(path, headers=headers).status_code
