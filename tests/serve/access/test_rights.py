"""Which key opens which path, before a body is read."""

from __future__ import annotations

import pytest
from access_keys import BODIES, OWN, SHOP, WITH_ID, status_of
from fastapi.testclient import TestClient

from serve.access.key_file import own_key
from serve.access.rights import PUBLIC_PATHS, REQUIRED_RIGHTS

OTHER = "https://other.example"


class TestRights:
    def test_each_key_opens_what_it_names_and_nothing_else(
        self, client: TestClient, texts: dict[str, str]
    ) -> None:
        for path, needed in REQUIRED_RIGHTS.items():
            for right, text in texts.items():
                assert status_of(client, path, text) == (200 if right == needed else 403), (
                    path,
                    right,
                )

    @pytest.mark.parametrize("path", REQUIRED_RIGHTS)
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
        for path in PUBLIC_PATHS:
            assert status_of(client, path, None) == 200

    def test_a_path_that_nobody_named_is_closed(
        self, client: TestClient, texts: dict[str, str]
    ) -> None:
        for path in ("/nowhere", "/nowhere/else", "/recommend/x"):
            assert status_of(client, path, None) == 401
            assert {status_of(client, path, text) for text in texts.values()} == {403}
            assert status_of(client, path, OWN) == 404

    def test_a_line_break_at_its_end_opens_nothing_else(
        self, client: TestClient, texts: dict[str, str]
    ) -> None:
        assert status_of(client, "/recommend%0A", texts["recommend"]) == 403
        assert status_of(client, "/recommend%0A", OWN) == 422

    def test_every_route_is_named(self, client: TestClient) -> None:
        paths = set(client.get("/openapi.json").json()["paths"])
        with_id = {path: path.replace("{user_id}", "").replace("{item_id}", "") for path in paths}
        assert {*with_id.values()} == {*REQUIRED_RIGHTS, "/healthz", "/readyz"}

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
        assert {status_of(client, path, OWN) for path in REQUIRED_RIGHTS} == {200}
        assert status_of(client, "/model", own_key(b"another key of many bytes")) == 401

    def test_the_document_tells_of_keys(self, client: TestClient) -> None:
        document = client.get("/openapi.json").json()
        for path in REQUIRED_RIGHTS:
            named = path + {"/items/": "{item_id}", "/users/": "{user_id}"}.get(path, "")
            for operation in document["paths"][named].values():
                assert operation["security"]
                assert {"401", "403", "429"} <= set(operation["responses"])
        assert "security" not in document["paths"]["/healthz"]["get"]


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
