"""GET /tracker.js: as it is served, and what it sends from a page in a real browser."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from access_keys import add_key
from browser import CHROMIUM, in_browser
from bundles import item_id, version_in
from fastapi.testclient import TestClient
from services import make_service
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.ports import free_ports
from recsys.config import Recipe
from recsys.state import StateEvent
from serve.core.service import Service
from serve.http.routes import build_http


def test_it_is_small_public_and_kept_by_browsers(client: TestClient) -> None:
    answer = client.get("/tracker.js")
    assert answer.status_code == 200 and len(answer.content) < 4096
    assert answer.headers["content-type"].startswith("text/javascript")
    assert answer.headers["cache-control"] == "public, max-age=3600"
    again = client.get("/tracker.js", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head("/tracker.js").status_code == 200
    assert client.get("/healthz").headers["cache-control"] == "no-store"


class Shop:
    """A shop's pages, and in front of the service what refuses its first requests.

    Args:
        app: the service.
        scripts: of the pages, by path.
        num_refused: requests of `/events` that are answered 503 first.
    """

    def __init__(self, app: ASGIApp, scripts: dict[str, str], num_refused: int = 0) -> None:
        self._app, self._scripts, self._num_refused = app, scripts, num_refused
        self.posted: list[dict[str, str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path")
        if path in self._scripts:
            return await HTMLResponse(self._scripts[path])(scope, receive, send)
        if path == "/events" and scope["method"] == "POST":
            self.posted.append({k.decode(): v.decode() for k, v in scope["headers"]})
            if len(self.posted) <= self._num_refused:
                return await PlainTextResponse("", 503)(scope, receive, send)
        await self._app(scope, receive, send)


@contextmanager
def listening(app: ASGIApp, port: int) -> Iterator[None]:
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        yield
    finally:
        server.should_exit = True
        thread.join(20)


@contextmanager
def browsing(url: str, profile: Path) -> Iterator[None]:
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu",
               "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={profile}",
               "--remote-debugging-port=0", url]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def until(holds: Callable[[], Any], patience_s: float = 60) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.1)


def page(script_url: str, body: str) -> str:
    return f'<!doctype html><script src="{script_url}"></script><script>{body}</script>'


def held(service: Service, user: str = "u") -> list[StateEvent]:
    return service._users.history(user)


@in_browser
def test_a_page_that_is_left_sends_by_beacon_how_long_it_was_looked_at(
    recipe: Recipe, bundle: Path, tmp_path: Path
) -> None:
    service = make_service(recipe)
    (port,) = free_ports(1)
    scripts = {
        "/one": page("/tracker.js", f"""
            raycommend.start({{user: "u"}});
            raycommend.track("click", "before consent");
            raycommend.consent(true);
            raycommend.track("click", "{item_id(1)}", {{request_id: "r", position: 2}});
            raycommend.view("{item_id(3)}", {{placement: "shop/one"}});
            setTimeout(() => {{ location = "/two"; }}, 1000);
        """),
        "/two": page("/tracker.js", ""),
    }  # fmt: skip
    shop = Shop(build_http(service), scripts)
    with listening(shop, port):
        asyncio.run(service.load(bundle, version_in(bundle)))
        with browsing(f"http://127.0.0.1:{port}/one", tmp_path / "profile"):
            until(lambda: len(held(service)) >= 2)
        waiting = service._users._state.claim(10)
    assert waiting is not None and [each.item_id for each in waiting.events] == [
        item_id(1), item_id(3),
    ]  # fmt: skip
    click, view = (json.loads(each.details or "{}") for each in waiting.events)
    assert click == {"request_id": "r", "position": 2}
    assert view["placement"] == "shop/one" and 900 <= view["dwell_ms"] < 20_000
    assert all("authorization" not in headers for headers in shop.posted)


def with_tokens(
    recipe: Recipe, folder: Path, access: dict[str, Any], *users: str
) -> tuple[Service, ASGIApp, list[str]]:
    """A service that asks for keys, and a token of each user."""
    key = add_key(folder / "keys.json", "shop", "events", "tokens")
    access = {**access, "keys": str(folder / "keys.json")}
    serve = recipe.serve.model_validate({**recipe.serve.model_dump(), "access": access})
    service = make_service(recipe.model_copy(update={"serve": serve}))
    app, headers = build_http(service), {"X-API-Key": key}
    client = TestClient(app)
    asked = [client.post("/users/token", json={"user_id": u}, headers=headers) for u in users]
    return service, app, [answer.json()["token"] for answer in asked]


@in_browser
def test_who_comes_next_loses_nothing_by_what_could_not_be_sent_before(
    recipe: Recipe, bundle: Path, tmp_path: Path
) -> None:
    service, app, (first, second) = with_tokens(recipe, tmp_path, {}, "u", "v")
    (port,) = free_ports(1)
    body = f"""
        raycommend.start({{user: "u", token: "{first}", consent: true}});
        raycommend.track("view", "{item_id(1)}");
        raycommend.start({{user: "v", token: "{second}"}});
        raycommend.track("view", "{item_id(2)}");
    """
    shop = Shop(app, {"/": page("/tracker.js", body)}, num_refused=1)
    with listening(shop, port):
        asyncio.run(service.load(bundle, version_in(bundle)))
        with browsing(f"http://127.0.0.1:{port}/", tmp_path / "profile"):
            until(lambda: held(service, "v"), 20)


@in_browser
def test_another_origin_sends_with_a_token_and_tries_again(
    recipe: Recipe, bundle: Path, tmp_path: Path
) -> None:
    ours, theirs = free_ports(2)
    access = {"origins": [f"http://127.0.0.1:{theirs}"]}
    service, app, (token,) = with_tokens(recipe, tmp_path, access, "u")
    body = f"""
        const user = "u", token = "{token}";
        raycommend.start({{user, token, consent: true}});
        for (let n = 0; n < 3; n++) raycommend.track("view", "{item_id(5)}");
        raycommend.track("stared", "{item_id(5)}");
    """
    shop = Shop(app, {}, num_refused=1)
    script = f"http://127.0.0.1:{ours}/tracker.js"
    pages = Shop(PlainTextResponse("", 404), {"/": page(script, body)})
    with listening(shop, ours), listening(pages, theirs):
        asyncio.run(service.load(bundle, version_in(bundle)))
        with browsing(f"http://127.0.0.1:{theirs}/", tmp_path / "profile"):
            until(lambda: len(held(service)) >= 3)
            events = held(service)
    assert len(events) == 3
    assert len(shop.posted) == 2, "refused once, then taken: the wrong event is not sent again"
    assert all(headers["authorization"].startswith("Bearer ") for headers in shop.posted)
    now = dt.datetime.now(dt.UTC).timestamp()
    assert all(abs(now - each.timestamp / 1e6) < 120 for each in events)
