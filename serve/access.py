"""Who may ask what: API keys, hashed at rest, each with scopes and a rate.

It stands in the application because each replica's own port can be reached past the proxy.
A key is 256 random bits, so its plain SHA-256 cannot be guessed back; nothing slower is needed.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, ValidationError
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.config import Section
from recsys.errors import DataError
from recsys.files import write_json
from serve.problems import refusal

logger = logging.getLogger("ray.serve")

#: What a key opens: answers; the store of events; what tells of the service itself.
Right = Literal["recommend", "events", "admin"]
RIGHTS: tuple[Right, ...] = get_args(Right)
#: Paths that take no key: health and documentation.
OPEN = frozenset(
    {"/healthz", "/readyz", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}
)
#: Path -> the right that it takes. One that is named nowhere takes `admin`: a new route that was
#: forgotten here is closed.
NEEDED: dict[str, Right] = {
    "/recommend": "recommend",
    "/rank": "recommend",
    "/events": "events",
    "/items": "admin",
    "/model": "admin",
}
#: Begin of every key: a leaked one is recognised, by people and by scanners of repositories.
PREFIX = "rck_"
#: Seconds between two looks at the key file.
LOOK_S = 1.0
#: A key may save up the requests of so many seconds.
BURST_S = 2.0


class Key(Section):
    """One key, as the file holds it.

    Attributes:
        name: whose it is; shown in logs and lists.
        sha256: of the key, hexadecimal.
        rights: what it opens.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    rights: Annotated[tuple[Right, ...], Field(min_length=1)]


class KeyFile(Section):
    """The file of keys."""

    format: Literal[1] = 1
    keys: tuple[Key, ...] = ()

    @staticmethod
    def read(path: Path) -> KeyFile:
        """The keys of a file.

        Raises:
            DataError: it is missing, unreadable or not a file of keys.
        """
        try:
            return KeyFile.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise DataError(
                "no file of API keys", where=path, field="serve.access.keys",
                mend="make a key with `recsys keys add`, or set serve.access.keys to null",
            ) from None  # fmt: skip
        except OSError as error:
            raise DataError(
                f"the file of API keys cannot be read: {error.strerror}", where=path,
                field="serve.access.keys", mend="mend its permissions",
            ) from error  # fmt: skip
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise DataError(
                f"not a file of API keys: {first['msg']}", where=path,
                field=".".join(map(str, first["loc"])),
                mend="restore it from a copy, or make the keys again with `recsys keys add`",
            ) from None  # fmt: skip

    def write(self, path: Path) -> None:
        """Replace the file whole; only its owner can read it."""
        write_json(path, self.model_dump(mode="json"), mode=0o600)

    def with_key(self, name: str, rights: tuple[Right, ...]) -> tuple[KeyFile, str]:
        """These keys and a new one, and the new one's text: it is kept nowhere.

        Raises:
            DataError: there is a key of this name.
        """
        if any(key.name == name for key in self.keys):
            raise DataError(
                "there is a key of this name", where="keys", field="name", value=name,
                mend="take another name, or remove that key first",
            )  # fmt: skip
        text = PREFIX + secrets.token_urlsafe(32)
        key = Key(name=name, sha256=digest(text), rights=rights)
        return KeyFile(keys=(*self.keys, key)), text

    def without(self, name: str) -> KeyFile:
        """These keys less one.

        Raises:
            DataError: there is none of this name.
        """
        kept = tuple(key for key in self.keys if key.name != name)
        if len(kept) == len(self.keys):
            raise DataError(
                "there is no key of this name", where="keys", field="name", value=name,
                mend="see `recsys keys list`",
            )  # fmt: skip
        return KeyFile(keys=kept)


def digest(text: str) -> str:
    """SHA-256 of a key, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def own_key(pseudonym_key: bytes) -> str:
    """The key that `recsys serve` asks its own service with: whoever has the pseudonyms' key."""
    return PREFIX + hmac.digest(pseudonym_key, b"raycommend service", "sha256").hex()


@dataclass
class Bucket:
    """A token bucket: `rate` requests a second, and `BURST_S` seconds' worth saved up.

    Attributes:
        rate: tokens a second.
        tokens: there now.
        at: when they were counted, seconds.
    """

    rate: float
    tokens: float
    at: float

    def take(self, now: float) -> float:
        """Take a token; the seconds to wait for one if there is none, else 0."""
        most = max(1.0, self.rate * BURST_S)
        self.tokens = min(most, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return (1 - self.tokens) / self.rate
        self.tokens -= 1
        return 0.0


@dataclass
class Keys:
    """The keys of a file, read again when it changes; the last good ones if it breaks.

    Args:
        path: of the file.
        own: text of the service's own key, which opens everything.
        rate: requests a second that each key may ask of this replica; None: no bound.
    """

    path: Path
    own: str
    rate: float | None
    _by_digest: dict[str, Key] = field(default_factory=dict)
    _buckets: dict[str, Bucket] = field(default_factory=dict)
    _looked: float = float("-inf")
    _stamp: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self._load()

    def find(self, text: str) -> Key | None:
        """The key of this text, if there is one."""
        self._look()
        return self._by_digest.get(digest(text))

    def wait_s(self, key: Key) -> float:
        """Seconds until this key may ask; 0: now, and it counts."""
        if self.rate is None or key.sha256 == digest(self.own):
            return 0.0
        now = time.monotonic()
        fresh = Bucket(self.rate, self.rate * BURST_S, now)
        return self._buckets.setdefault(key.sha256, fresh).take(now)

    def _look(self) -> None:
        if time.monotonic() - self._looked < LOOK_S:
            return
        try:
            self._load()
        except DataError as error:
            logger.error("keeping the last good keys: %s", error)

    def _load(self) -> None:
        self._looked = time.monotonic()
        stamp = _stamp(self.path)
        if self._stamp is not None and stamp == self._stamp:
            return
        keys = KeyFile.read(self.path).keys
        own = Key(name="recsys-serve", sha256=digest(self.own), rights=RIGHTS)
        self._by_digest = {key.sha256: key for key in (*keys, own)}
        self._buckets = {}
        self._stamp = stamp


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


class Access:
    """ASGI middleware: answers 401, 403 or 429 to whoever may not ask, before reading the body."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        await self._answerer(scope)(scope, receive, send)

    def _answerer(self, scope: Scope) -> ASGIApp:
        if scope["type"] != "http":
            return self._app
        path = scope["path"].rstrip("/")
        if path in OPEN:
            return self._app
        # The router takes a path with a line break at its end for the path without.
        right = NEEDED.get(path.removesuffix("\n"), "admin")
        return refused(self._keys, Headers(scope=scope), right, scope["path"]) or self._app


def refused(keys: Keys, headers: Mapping[str, str], right: Right, path: str) -> Response | None:
    """The answer to whoever may not ask.

    Args:
        keys: that are known.
        headers: of the request, their names in small letters.
        right: that it takes.
        path: what it asks.
    """
    text = _text_of(headers)
    key = keys.find(text) if text else None
    if key is None:
        return _unauthorised(sent=text is not None)
    if right not in key.rights:
        msg = f"this key does not open {path}: it lacks the right `{right}`"
        return refusal(403, [((), msg, "forbidden")])
    wait = keys.wait_s(key)
    return _too_many(wait) if wait else None


def _text_of(headers: Mapping[str, str]) -> str | None:
    """The key that a request carries."""
    scheme, _, text = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and text.strip():
        return text.strip()
    return headers.get("x-api-key")


def _unauthorised(*, sent: bool) -> Response:
    msg = "this key is not known" if sent else "send a key: `Authorization: Bearer <key>`"
    answer = refusal(401, [((), msg, "unauthorised")])
    answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def _too_many(wait_s: float) -> Response:
    answer = refusal(429, [((), "this key asks too often", "rate")])
    answer.headers["Retry-After"] = str(max(1, round(wait_s + 0.5)))
    return answer
