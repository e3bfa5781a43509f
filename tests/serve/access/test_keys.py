"""API keys: who may ask what, in this process; what is on disk; what a change of the file does."""

from __future__ import annotations

import base64
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundles import make_recipe, version_in
from fastapi.testclient import TestClient
from services import make_service

from recsys.config import Recipe
from recsys.errors import DataError, RecipeError
from serve.access import command, keys
from serve.access.keys import Bucket, KeyFile, Keys, digest, own_key
from serve.http.routes import build_http
from serve.schemas.callers import RIGHTS, TOKEN_PREFIX, Caller

HASH = "0" * 64
OWN = own_key(b"0123456789abcdef0123456789abcdef")
SHOP, OTHER = "https://shop.example", "https://other.example"
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


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "keys.json"


def add(path: Path, name: str, *rights: keys.Right) -> str:
    file = KeyFile.read(path) if path.exists() else KeyFile()
    file, text = file.with_key(name, rights)
    file.write(path)
    return text


@pytest.fixture
def texts(key_file: Path) -> dict[str, str]:
    """A key of each right alone."""
    return {right: add(key_file, f"only-{right}", right) for right in RIGHTS}


@pytest.fixture
def recipe(
    tmp_path: Path, language_model: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Recipe:
    monkeypatch.setenv("RAYCOMMEND_PSEUDONYM_KEY", "0123456789abcdef0123456789abcdef")
    settings = {"keys": str(key_file), "origins": [SHOP]}
    return make_recipe(tmp_path / "run", language_model, serve={"access": settings})


@pytest.fixture
def client(texts: dict[str, str], recipe: Recipe, bundle: Path) -> Iterator[TestClient]:
    service = make_service(recipe)
    with TestClient(build_http(service), raise_server_exceptions=False) as client:
        assert client.portal is not None
        client.portal.call(service.load, bundle, version_in(bundle))
        yield client


def ask(client: TestClient, path: str, key: str | None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    if (body := BODIES.get(path.removesuffix("%0A"))) is not None:
        return client.post(path, json=body, headers=headers).status_code
    if path in WITH_ID:
        return client.delete(WITH_ID[path], headers=headers).status_code
    return client.get(path, headers=headers).status_code


class TestRights:
    def test_each_key_opens_what_it_names_and_nothing_else(
        self, client: TestClient, texts: dict[str, str]
    ) -> None:
        for path, needed in keys.NEEDED.items():
            for right, text in texts.items():
                assert ask(client, path, text) == (200 if right == needed else 403), (path, right)

    @pytest.mark.parametrize("path", keys.NEEDED)
    @pytest.mark.parametrize("key", [None, "", "rck_wrong", "Bearer", "\u00e9"])
    def test_without_a_known_key_nothing_opens(
        self, client: TestClient, path: str, key: str | None
    ) -> None:
        headers = {} if key is None else {b"Authorization": f"Bearer {key}".encode("latin-1")}
        body = BODIES.get(path)
        method = "POST" if body else "GET"
        answer = client.request(method, WITH_ID.get(path, path), json=body, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["detail"][0]["type"] == "unauthorised"

    def test_health_and_documentation_are_open(self, client: TestClient) -> None:
        for path in keys.OPEN:
            assert ask(client, path, None) == 200

    def test_a_path_that_nobody_named_is_closed(
        self, client: TestClient, texts: dict[str, str]
    ) -> None:
        for path in ("/nowhere", "/nowhere/else", "/recommend/x"):
            assert ask(client, path, None) == 401
            assert {ask(client, path, text) for text in texts.values()} == {403}
            assert ask(client, path, OWN) == 404

    def test_a_line_break_at_its_end_opens_nothing_else(
        self, client: TestClient, texts: dict[str, str]
    ) -> None:
        assert ask(client, "/recommend%0A", texts["recommend"]) == 403
        assert ask(client, "/recommend%0A", OWN) == 422

    def test_every_route_is_named(self, client: TestClient) -> None:
        paths = set(client.get("/openapi.json").json()["paths"])
        with_id = {path: path.replace("{user_id}", "").replace("{item_id}", "") for path in paths}
        assert {*with_id.values()} == {*keys.NEEDED, "/healthz", "/readyz"}

    def test_to_erase_a_user_takes_its_right(
        self, client: TestClient, texts: dict[str, str]
    ) -> None:
        for right, text in texts.items():
            for user in ("u", "recommend", "healthz", "%2Fhealthz", "erase", "token"):
                answer = client.delete(f"/users/{user}", headers={"X-API-Key": text})
                assert answer.status_code == (200 if right == "erase" else 403), (right, user)

    def test_the_other_header_will_do(self, client: TestClient, texts: dict[str, str]) -> None:
        headers = {"X-API-Key": texts["recommend"]}
        answer = client.post("/recommend", json=BODIES["/recommend"], headers=headers)
        assert answer.status_code == 200

    @pytest.mark.parametrize("path", ["/recommend/", "//recommend", "/Recommend", "/recommend%2f"])
    def test_a_path_written_otherwise_opens_nothing(self, client: TestClient, path: str) -> None:
        answer = client.post(path, json=BODIES["/recommend"], follow_redirects=True)
        assert answer.status_code == 401

    def test_the_body_is_not_read_before(self, client: TestClient) -> None:
        answer = client.post("/recommend", content=b"x" * (2 << 20))
        assert answer.status_code == 401

    def test_whoever_has_the_pseudonyms_key_is_the_service_itself(self, client: TestClient) -> None:
        assert {ask(client, path, OWN) for path in keys.NEEDED} == {200}
        assert ask(client, "/model", own_key(b"another key of many bytes")) == 401

    def test_the_document_tells_of_keys(self, client: TestClient) -> None:
        document = client.get("/openapi.json").json()
        for path in keys.NEEDED:
            named = path + {"/items/": "{item_id}", "/users/": "{user_id}"}.get(path, "")
            for operation in document["paths"][named].values():
                assert operation["security"]
                assert {"401", "403", "429"} <= set(operation["responses"])
        assert "security" not in document["paths"]["/healthz"]["get"]


class TestOtherPeople:
    """What a user did is told to those who may know: a right, or a token of the user's own."""

    @pytest.fixture
    def shop(self, key_file: Path, texts: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
        """The key of the shop's server."""
        monkeypatch.setattr(keys, "LOOK_S", 0.0)
        return add(key_file, "shop", "recommend", "explain", "events", "tokens")

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
        for path in keys.NEEDED.keys() - {"/recommend", "/rank", "/events"}:
            assert ask(client, path, mine) == 403, path

    def test_it_opens_no_more_than_the_key_behind_it(
        self, client: TestClient, texts: dict[str, str]
    ) -> None:
        mine = self.token(client, texts["tokens"])
        for path in keys.NEEDED:
            assert ask(client, path, mine) == 403

    def test_it_ends_with_its_time_and_with_its_key(
        self, client: TestClient, shop: str, key_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine, long = self.token(client, shop, lives_s=1), self.token(client, shop, lives_s=86_400)
        now = time.time()
        monkeypatch.setattr(keys.time, "time", lambda: now + 2)
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
        found = Keys(key_file, "own", rate=1.0, signing=b"key")
        callers = [Caller(user=user, key="k") for user in ("u", "v")]
        assert [found.wait_s(each) for each in callers * 2] == [0.0] * 4
        assert found.wait_s(callers[0]) > 0


class TestRate:
    def test_a_bucket_fills_at_its_rate(self) -> None:
        bucket = Bucket(rate=2.0, tokens=2.0, at=0.0)
        assert [bucket.take(0.0) for _ in range(3)] == [0.0, 0.0, 0.5]
        assert bucket.take(0.5) == 0.0
        assert bucket.take(0.5) == pytest.approx(0.5)
        assert [bucket.take(100.0) for _ in range(5)] == [0.0] * 4 + [pytest.approx(0.5)]

    def test_a_slow_rate_still_lets_one_through(self) -> None:
        bucket = Bucket(rate=0.1, tokens=0.2, at=0.0)
        assert bucket.take(0.0) == pytest.approx(8.0)
        assert bucket.take(8.0) == pytest.approx(0.0, abs=1e-9)

    def test_who_asks_too_often_is_told_when_to_come_again(
        self, texts: dict[str, str], recipe: Recipe, bundle: Path
    ) -> None:
        settings = recipe.serve.access.model_copy(update={"requests_per_s": 2.0})
        limited = recipe.serve.model_copy(update={"access": settings})
        service = make_service(recipe.model_copy(update={"serve": limited}))
        client = TestClient(build_http(service))
        codes = [ask(client, "/model", texts["monitor"]) for _ in range(12)]
        assert codes[:4] == [503] * 4  # no model yet; it is let through
        assert 429 in codes
        answer = client.get("/model", headers={"X-API-Key": texts["monitor"]})
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
        # Others have buckets of their own, and the service's own key has none.
        assert ask(client, "/recommend", texts["recommend"]) == 503
        assert {ask(client, "/model", OWN) for _ in range(12)} == {503}


class TestBrowsers:
    def test_only_the_origins_of_the_recipe_may_ask(
        self, client: TestClient, texts: dict[str, str]
    ) -> None:
        for origin, allowed in ((SHOP, True), (OTHER, False)):
            asked = {
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "Authorization, Content-Type",
            }
            answer = client.options("/recommend", headers=asked)
            assert (answer.status_code == 200) == allowed
            assert (answer.headers.get("access-control-allow-origin") == origin) == allowed

    def test_answers_are_not_kept_nor_guessed_at(self, client: TestClient) -> None:
        for path in ("/healthz", "/nowhere", "/model"):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert "default-src 'none'" in headers["content-security-policy"]
        page = client.get("/docs").headers
        assert page["x-frame-options"] == "DENY"
        assert "content-security-policy" not in page


class TestFile:
    def test_it_holds_no_key_and_only_its_owner_reads_it(
        self, key_file: Path, texts: dict[str, str]
    ) -> None:
        content = key_file.read_text()
        assert not any(text in content for text in texts.values())
        assert digest(texts["monitor"]) in content
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600

    def test_a_change_is_known_at_once_and_a_broken_file_changes_nothing(
        self, key_file: Path, texts: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keys, "LOOK_S", 0.0)
        found = Keys(key_file, "own", None)
        assert found.find(texts["monitor"]) is not None
        fresh = add(key_file, "fresh", "monitor")
        assert found.find(fresh) is not None
        KeyFile.read(key_file).without("only-monitor").write(key_file)
        assert found.find(texts["monitor"]) is None
        key_file.write_text("{")
        assert found.find(fresh) is not None
        key_file.unlink()
        assert found.find(fresh) is not None
        assert found.find(texts["monitor"]) is None

    def test_a_right_of_an_earlier_release_is_what_it_opened(self, key_file: Path) -> None:
        key_file.parent.mkdir(exist_ok=True)
        old = {"name": "ops", "sha256": HASH, "rights": ["recommend", "admin"]}
        key_file.write_text(json.dumps({"format": 1, "keys": [old]}))
        (key,) = KeyFile.read(key_file).keys
        assert set(key.rights) == set(RIGHTS) - {"events"}

    @pytest.mark.parametrize("name", ["bad name", "", "-x", "a" * 65, "a\n"])
    def test_a_name_that_is_none_is_refused(self, name: str) -> None:
        with pytest.raises(DataError, match="not a name for a key") as caught:
            KeyFile().with_key(name, ("events",))
        assert caught.value.value == name

    def test_it_is_not_read_for_every_request(
        self, key_file: Path, texts: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = Keys(key_file, "own", None)
        monkeypatch.setattr(KeyFile, "read", lambda _: pytest.fail("read again"))
        os.utime(key_file, (time.time(), time.time() + 5))
        assert found.find(texts["monitor"]) is not None

    @pytest.mark.parametrize(
        ("content", "field"),
        [
            ("", ""),
            ('{"format": 2}', "format"),
            ("{}", "keys"),
            ('{"keys": [{"name": "a", "sha256": "x", "rights": ["admin"]}]}', "keys.0.sha256"),
            (f'{{"keys": [{{"name": "a", "sha256": "{HASH}", "rights": []}}]}}', "keys.0.rights"),
            (f'{{"keys": [{{"name": "a b", "sha256": "{HASH}"}}]}}', "keys.0.name"),
        ],
    )
    def test_a_strange_file_is_named(self, tmp_path: Path, content: str, field: str) -> None:
        path = tmp_path / "strange.json"
        path.write_text(content)
        with pytest.raises(DataError, match=r"strange\.json") as caught:
            KeyFile.read(path)
        assert field in str(caught.value)

    def test_a_service_does_not_start_without_its_file(self, recipe: Recipe) -> None:
        with pytest.raises(DataError, match="recsys keys add"):
            make_service(recipe)


class TestCommand:
    @pytest.fixture
    def run(self, tmp_path: Path, key_file: Path) -> list[str]:
        path = tmp_path / "recipe.yaml"
        data = {"source": "log", "cuts": {"valid": "2026-01-01", "test": "2026-02-01"}}
        serve = {"access": {"keys": str(key_file)}}
        path.write_text(json.dumps({"name": "shop", "data": data, "serve": serve}))
        return ["--config", str(path)]

    def test_add_list_remove(
        self, run: list[str], key_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert (
            command.main(["add", "front", "--right", "recommend", "--right", "events", *run]) == 0
        )
        text = capsys.readouterr().out.strip()
        assert text.startswith("rck_") and len(text) > 40
        found = Keys(key_file, "own", None).find(text)
        assert found is not None and found.rights == ("recommend", "events")
        assert command.main(["list", *run]) == 0
        assert capsys.readouterr().out.split() == ["front", "recommend,", "events"]
        assert command.main(["add", "front", "--right", "items", *run]) != 0
        assert "another name" in capsys.readouterr().err
        assert command.main(["add", "bad name", "--right", "items", *run]) == 2
        (told,) = capsys.readouterr().err.splitlines()
        assert "'bad name'" in told
        assert command.main(["remove", "front", *run]) == 0
        assert KeyFile.read(key_file).keys == ()
        assert command.main(["remove", "front", *run]) != 0

    def test_a_broken_file_is_not_written_over(self, run: list[str], key_file: Path) -> None:
        key_file.parent.mkdir()
        key_file.write_text("{")
        assert command.main(["add", "front", "--right", "items", *run]) != 0
        assert key_file.read_text() == "{"

    def test_the_recipe_has_to_name_the_file(
        self, run: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert command.main(["list", *run, "--set", "serve.access.keys=null"]) != 0
        assert "serve.access.keys" in capsys.readouterr().err


def test_a_rate_needs_keys(tmp_path: Path, language_model: Path) -> None:
    for settings in ({"requests_per_s": 3}, {"origins": ["*"]}, {"origins": ["https://a/b"]}):
        with pytest.raises(RecipeError):
            make_recipe(tmp_path, language_model, serve={"access": settings})
