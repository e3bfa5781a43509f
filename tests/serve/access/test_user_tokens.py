"""User tokens: what a browser may ask, for one user, until they expire."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest
from access_keys import add_key, status_of
from fastapi.testclient import TestClient

from serve.access.key_file import KeyFile
from serve.access.key_ring import KeyRing
from serve.access.rights import REQUIRED_RIGHTS
from serve.core.service import Service
from serve.schemas.callers import TOKEN_PREFIX, Caller


class TestOtherPeople:
    """What a user did is told to those who may know: a right, or a token of the user's own."""

    @pytest.fixture
    def shop(self, key_file: Path, service: Service) -> str:
        """The key of the shop's server; the file is read again whenever it changes."""
        assert service.keys is not None
        service.keys.look_s = 0.0
        return add_key(key_file, "shop", "recommend", "explain", "events", "tokens")

    def token(self, client: TestClient, key: str, user: str = "u", **more: int) -> str:
        answer = client.post(
            "/users/token", json={"user_id": user, **more}, headers={"X-API-Key": key}
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["expires"] == pytest.approx(
            time.time() + more.get("lives_s", 3600), abs=60
        )
        return str(answer.json()["token"])

    def status(self, client: TestClient, path: str, key: str, **body: object) -> tuple[int, str]:
        answer = client.post(path, json=body, headers={"X-API-Key": key})
        detail = answer.json().get("detail", [{"field": ""}])
        return answer.status_code, detail[0]["field"]

    @pytest.mark.parametrize("path", ["/recommend", "/rank"])
    def test_to_explain_a_named_user_takes_a_right(
        self, client: TestClient, texts: dict[str, str], shop: str, path: str
    ) -> None:
        asked = {"candidates": ["item-0001"]} if path == "/rank" else {}
        plain = texts["recommend"]
        named = {"user_id": "u", "explain": True, **asked}
        assert self.status(client, path, plain, **named) == (403, "explain")
        assert self.status(client, path, shop, **named) == (200, "")
        session = {"history": [{"item_id": "item-0001"}], "explain": True, **asked}
        assert self.status(client, path, plain, **session) == (200, "")

    def test_a_user_token_opens_what_is_its_users(self, client: TestClient, shop: str) -> None:
        mine = self.token(client, shop)
        bought = {"item_id": "item-0001", "event_type": "purchase"}
        assert mine.startswith(TOKEN_PREFIX) and '"u"' not in mine
        assert self.status(client, "/events", mine, user_id="u", **bought) == (200, "")
        for path, asked in (("/recommend", {}), ("/rank", {"candidates": ["item-0001"]})):
            assert self.status(client, path, mine, user_id="u", explain=True, **asked) == (200, "")
            assert self.status(client, path, mine, history=[], **asked) == (200, "")
            assert self.status(client, path, mine, user_id="v", **asked) == (403, "user_id")
        assert self.status(client, "/events", mine, user_id="v", **bought) == (403, "user_id")
        both = [{"user_id": user, **bought} for user in ("u", "v")]
        assert self.status(client, "/events", mine, events=both) == (403, "events[1].user_id")
        for path in REQUIRED_RIGHTS.keys() - {"/recommend", "/rank", "/events"}:
            assert status_of(client, path, mine) == 403, path

    def test_it_opens_no_more_than_the_key_behind_it(
        self, client: TestClient, texts: dict[str, str]
    ) -> None:
        mine = self.token(client, texts["tokens"])
        for path in REQUIRED_RIGHTS:
            assert status_of(client, path, mine) == 403

    def test_it_ends_with_its_time_and_with_its_key(
        self, client: TestClient, shop: str, key_file: Path, service: Service
    ) -> None:
        mine, long = self.token(client, shop, lives_s=1), self.token(client, shop, lives_s=86_400)
        now = time.time()
        assert service.keys is not None
        service.keys.clock = lambda: now + 2
        assert self.status(client, "/recommend", mine, user_id="u")[0] == 401
        assert self.status(client, "/recommend", long, user_id="u")[0] == 200
        KeyFile.read(key_file).without("shop").write(key_file)
        assert self.status(client, "/recommend", long, user_id="u")[0] == 401

    def test_one_that_was_changed_is_nobodys(self, client: TestClient, shop: str) -> None:
        mine = self.token(client, shop)
        body, _, signature = mine.removeprefix(TOKEN_PREFIX).partition(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=="))
        other = base64.urlsafe_b64encode(json.dumps({**claims, "user": "v"}).encode()).decode()
        for text in (
            f"{TOKEN_PREFIX}{other.rstrip('=')}.{signature}", f"{TOKEN_PREFIX}{body}.",
            f"{TOKEN_PREFIX}{body}", f"{TOKEN_PREFIX}.", TOKEN_PREFIX, mine[:-2], mine + "x",
        ):  # fmt: skip
            assert self.status(client, "/recommend", text, user_id="u")[0] == 401, text

    @pytest.mark.parametrize("lives_s", [0, -1, 86_401, "3600", 1.5])
    def test_no_token_lives_for_ever(self, client: TestClient, shop: str, lives_s: object) -> None:
        asked = {"user_id": "u", "lives_s": lives_s}
        assert self.status(client, "/users/token", shop, **asked) == (422, "lives_s")

    def test_each_user_has_a_rate(self, key_file: Path, texts: dict[str, str]) -> None:
        found = KeyRing(key_file, "own", rate=1.0, signing=b"key")
        callers = [Caller(user=user, key="k") for user in ("u", "v")]
        assert [found.wait_s(each) for each in callers * 2] == [0.0] * 4
        assert found.wait_s(callers[0]) > 0
