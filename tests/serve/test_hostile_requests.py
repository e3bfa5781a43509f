"""What no document describes: bodies, types, lengths, paths and headers that no client sends."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fuzzed_application import KEY, application, complaints, with_keys
from starlette.types import ASGIApp

from serve.access.key_file import own_key

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory, language_model: Path, bundle: Path) -> ASGIApp:
    """Without keys."""
    return application(tmp_path_factory.mktemp("free"), language_model, bundle)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, language_model: Path, bundle: Path) -> ASGIApp:
    """With keys."""
    return with_keys(tmp_path_factory.mktemp("keyed"), language_model, bundle)


JSON = [(b"content-type", b"application/json")]
BODIES = {
    "nothing": b"",
    "no object": b"[]",
    "null": b"null",
    "a word": b'"x"',
    "half of it": b'{"user_id": "u"',
    "no UTF-8": b'{"user_id": "\xff\xfe"}',
    "UTF-16": '{"user_id": "u"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"user_id": "u"}',
    "a lone surrogate": b'{"user_id": "\\ud800"}',
    "a lone surrogate as name": b'{"\\udfff": 1}',
    "a zero byte": b'{"user_id": "a\\u0000b"}',
    "duplicate keys": b'{"user_id": "a", "user_id": "b"}',
    "NaN": b'{"user_id": "u", "diversity": NaN}',
    "infinity": b'{"user_id": "u", "k": 1e999}',
    "a huge whole number": b'{"user_id": "u", "k": ' + b"9" * 4000 + b"}",
    "too huge a number": b'{"user_id": "u", "k": ' + b"9" * 5000 + b"}",
    "a huge number with a point": b'{"user_id": "u", "k": 1e300}',
    "a huge cap": b'{"user_id": "u", "max_per_category": 1e300, "diversity": 0.5}',
    "a huge price": b'{"user_id": "u", "filters": {"min_price": 1e308, "max_price": 1e309}}',
    **{
        moment: b'{"history": [{"item_id": "i", "timestamp": "%s"}]}' % moment.encode()
        for moment in (
            "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2026-02-30T00:00:00Z",
        )
    },
    "deep brackets": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"filters": ' * 50_000 + b"1" + b"}" * 50_000,
    "deep in a field": b'{"user_id": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "many names": json.dumps({f"n{i}": i for i in range(50_000)}).encode(),
    "many candidates": json.dumps({"user_id": "u", "candidates": ["x"] * 200_000}).encode(),
    "too large": b'{"user_id": "' + b"u" * (1 << 20) + b'"}',
    "an event": b'{"user_id": "u", "item_id": "i", "event_type": "view", "event_id": "\\ud800"}',
    "a form": b"user_id=u&k=3",
}  # fmt: skip
TYPES = [
    b"", b"text/plain", b"application/xml", b"application/x-www-form-urlencoded",
    b"multipart/form-data", b"application/json; charset=utf-16", b"application/json; charset=\xff",
    b"application/vnd.api+json", b"\xff\xfe", b"application/json, text/plain",
]  # fmt: skip
LENGTHS = [b"0", b"5", b"-5", b"+5", b"1e3", b"abc", b"", b"\xb2", b" 7 ", b"9" * 30, b"7, 9"]
KEYS = [
    b"", b"Bearer", b"Bearer ", b"Bearer \xff\xfe", b"Bearer " + b"x" * 60_000, b"Basic eDp5",
    b"bearer\tx", b"Bearer a b", b"\xe9", b"Bearer \x00", "Bearer \u2713".encode(),
]  # fmt: skip
ROUTES = ("/recommend", "/rank", "/events")
Headers = list[tuple[bytes, bytes]]


async def ask(
    app: ASGIApp, method: str, path: str, headers: Headers, body: bytes, query: bytes = b""
) -> tuple[int, dict[str, list[str]], bytes]:
    """One request as a server hands it on, which no client would send: (status, headers, body)."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": path, "raw_path": path.encode("utf-8", "replace"),
        "root_path": "", "query_string": query, "headers": headers, "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    waiting = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    named: dict[str, list[str]] = {}
    for name, value in sent[0]["headers"]:
        named.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    return sent[0]["status"], named, b"".join(message["body"] for message in sent[1:])


def answer(app: ASGIApp, *request: Any, **more: Any) -> int:
    """The status of the answer to `ask`, which must be in our form."""
    status, headers, body = asyncio.run(ask(app, *request, **more))
    assert not complaints(status, headers, body), (request[:3], complaints(status, headers, body))
    return status


class TestHostileRequests:
    """What no document describes. The application answers each in the form of its refusals."""

    @pytest.mark.parametrize("name", BODIES)
    def test_bodies(self, free: ASGIApp, name: str) -> None:
        fine = {"byte order mark", "duplicate keys", "UTF-16", "a huge cap", "an event"}
        for path in ROUTES:
            status = answer(free, "POST", path, JSON, BODIES[name])
            assert status in {400, 413, 422} or name in fine, (path, status)

    def test_very_many_unknown_fields_are_one_mistake(self, free: ASGIApp) -> None:
        many = BODIES["many names"]
        for path in ROUTES:
            _, _, body = asyncio.run(ask(free, "POST", path, JSON, many))
            assert [problem["type"] for problem in json.loads(body)["detail"]] == [
                "too_many_fields"
            ]
        inside = b'{"user_id": "u", "candidates": [' + many + b"]}"
        _, _, body = asyncio.run(ask(free, "POST", "/rank", JSON, inside))
        assert [problem["field"] for problem in json.loads(body)["detail"]] == ["candidates[0]"]

    def test_content_types(self, free: ASGIApp) -> None:
        for kind in TYPES:
            for path in ROUTES:
                status = answer(free, "POST", path, [(b"content-type", kind)], b'{"user_id": "u"}')
                assert status == 415 or b"json" in kind.lower(), (kind, status)
        assert answer(free, "POST", "/recommend", [], b'{"user_id": "u"}') == 415

    def test_lengths_that_lie(self, free: ASGIApp) -> None:
        for length in LENGTHS:
            headers = [*JSON, (b"content-length", length)]
            status = answer(free, "POST", "/recommend", headers, b'{"user_id": "u"}')
            assert status in {200, 400, 413}, (length, status)
        twice = [*JSON, (b"content-length", b"5"), (b"content-length", b"99999999")]
        assert answer(free, "POST", "/recommend", twice, b"x" * (2 << 20)) == 413

    def test_methods(self, free: ASGIApp) -> None:
        methods = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT",
                   "BREW", "get", "")  # fmt: skip
        for path, right in dict.fromkeys(ROUTES, "POST").items() | {
            ("/healthz", "GET"), ("/model", "GET"),
        }:  # fmt: skip
            for method in methods:
                if method != right:
                    status, headers, body = asyncio.run(ask(free, method, path, JSON, b"{}"))
                    if method == "HEAD":
                        assert (status, body) == (200 if right == "GET" else 405, b"")
                        continue
                    assert not complaints(status, headers, body)
                    allowed = "GET, HEAD" if right == "GET" else right
                    assert (status, headers["allow"]) == (405, [allowed]), (method, path)

    def test_paths(self, free: ASGIApp) -> None:
        for path in ("/nowhere", "//", "/recommend/x", "/\x00", "/\ud800", "/../etc", "/%00", "*",
                     "/" + "x" * 100_000, "/docs/.."):  # fmt: skip
            status = answer(free, "POST", path, JSON, b"{}")
            assert status in ({422} if "\x00" in path else {404, 405}), path
        assert answer(free, "GET", "/healthz", [], b"", b"\xff&a=%ff&" + b"a" * 50_000) == 200

    def test_headers(self, free: ASGIApp, keyed: ASGIApp) -> None:
        for name in (b"authorization", b"x-api-key"):
            for value in KEYS:
                for headers in ([(name, value)], [(name, value)] * 3):
                    assert answer(keyed, "GET", "/model", headers, b"") == 401, (name, value)
                    assert answer(free, "GET", "/model", headers, b"") == 200, (name, value)
        own = b"Bearer " + own_key(KEY.encode()).encode()
        both = [(b"authorization", own), (b"x-api-key", b"\xff")]
        assert answer(keyed, "GET", "/model", both, b"") == 200
        # The first one counts: a second one cannot be slipped in behind what a proxy has checked.
        assert (
            answer(keyed, "GET", "/model", [(b"authorization", b"Bearer x"), both[0]], b"") == 401
        )
        for name in (b"host", b"origin", b"accept", b"cookie", b"range", b"expect", b"\xff", b""):
            for value in (b"\xff\xfe", b"", b"a" * 60_000, b"null", b"a\r\nb: c"):
                assert answer(free, "GET", "/healthz", [(name, value)], b"") == 200, (name, value)

    def test_a_sender_that_leaves(self, free: ASGIApp) -> None:
        async def leave() -> list[Any]:
            sent: list[Any] = []
            parts = [
                {"type": "http.disconnect"},
                {"type": "http.request", "body": b"{", "more_body": True},
            ]

            async def receive() -> dict[str, Any]:
                return parts.pop() if parts else {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {"type": "http", "method": "POST", "path": "/recommend", "headers": JSON,
                     "query_string": b"", "root_path": "", "state": {}}  # fmt: skip
            await free(scope, receive, send)
            return sent

        assert asyncio.run(leave())[0]["status"] == 400
