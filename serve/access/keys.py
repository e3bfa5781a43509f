"""Who may ask what: API keys, hashed at rest, each with scopes and a rate.

It stands in the application because each replica's own port can be reached past the proxy.
A key is 256 random bits, so its plain SHA-256 cannot be guessed back; nothing slower is needed.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.config import Section
from recsys.errors import DataError
from recsys.storage.outputs import write_json
from serve.observability.trace import current
from serve.schemas.callers import (
    OF_A_USER,
    RIGHTS,
    TOKEN_PREFIX,
    Caller,
    Claims,
    Right,
    read_token,
    write_token,
)
from serve.schemas.problems import refusal

logger = logging.getLogger("ray.serve")

#: Of files that an earlier release wrote.
_EARLIER: dict[str, tuple[Right, ...]] = {
    "admin": ("explain", "items", "erase", "tokens", "monitor"),
}
#: Paths that take no key: health and documentation.
OPEN = frozenset(
    {"/healthz", "/readyz", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}
)
#: Path -> the right that it takes; with a slash at its end, of all paths below. One that is named
#: nowhere takes a key that opens everything: a new route that was forgotten here is closed.
NEEDED: dict[str, Right] = {
    "/recommend": "recommend",
    "/rank": "recommend",
    "/events": "events",
    "/items": "items",
    "/items/": "items",
    "/users/": "erase",
    "/users/erase": "erase",
    "/users/token": "tokens",
    "/model": "monitor",
}
#: Begin of every key: a leaked one is recognised, by people and by scanners of repositories.
PREFIX = "rck_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: Seconds between two looks at the key file.
LOOK_S = 1.0
#: A key may save up the requests of so many seconds.
BURST_S = 2.0
#: Buckets that are kept at most: each user token has one.
MAX_BUCKETS = 100_000


class Key(Section):
    """One key, as the file holds it.

    Attributes:
        name: whose it is; shown in logs and lists.
        sha256: of the key, hexadecimal.
        rights: what it opens.
    """

    name: Annotated[str, Field(pattern=f"^{_NAME.pattern}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    rights: Annotated[tuple[Right, ...], Field(min_length=1)]

    @field_validator("rights", mode="before")
    @classmethod
    def _of_today(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return tuple(right for each in value for right in _EARLIER.get(str(each), (each,)))


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
            found = KeyFile.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise DataError(
                "no file of API keys", where=path, field="serve.access.keys",
                fix="make a key with `recsys keys add`, or set serve.access.keys to null",
            ) from None  # fmt: skip
        except OSError as error:
            raise DataError(
                f"the file of API keys cannot be read: {error.strerror}", where=path,
                field="serve.access.keys", fix="correct its permissions",
            ) from error  # fmt: skip
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise DataError(
                f"not a file of API keys: {first['msg']}", where=path,
                field=".".join(map(str, first["loc"])),
                fix="restore it from a copy, or make the keys again with `recsys keys add`",
            ) from None  # fmt: skip
        if "keys" not in found.model_fields_set:
            raise DataError(
                "not a file of API keys: Field required", where=path, field="keys",
                fix="restore it from a copy, or make the keys again with `recsys keys add`",
            )  # fmt: skip
        return found

    def write(self, path: Path) -> None:
        """Replace the file whole; only its owner can read it."""
        write_json(path, self.model_dump(mode="json"), mode=0o600)

    def with_key(self, name: str, rights: tuple[Right, ...]) -> tuple[KeyFile, str]:
        """These keys and a new one, and the new one's text: it is kept nowhere.

        Raises:
            DataError: there is a key of this name, or it is no name.
        """
        if not _NAME.fullmatch(name):
            raise DataError(
                "not a name for a key", where="keys", field="name", value=name,
                fix="use letters, digits, '.', '_' and '-', at most 64 of them, and begin with a "
                "letter or digit",
            )  # fmt: skip
        if any(key.name == name for key in self.keys):
            raise DataError(
                "there is a key of this name", where="keys", field="name", value=name,
                fix="take another name, or remove that key first",
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
                fix="see `recsys keys list`",
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
        rate: requests a second that each key, and each user token's user, may ask of this replica;
            None: no bound.
        signing: key of the user tokens, see `callers`.
    """

    path: Path
    own: str
    rate: float | None
    signing: bytes = b""
    _by_digest: dict[str, Key] = field(default_factory=dict)
    _buckets: OrderedDict[str, Bucket] = field(default_factory=OrderedDict)
    _looked: float = float("-inf")
    _stamp: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self._load()

    def find(self, text: str) -> Key | None:
        """The key of this text, if there is one."""
        self._look()
        return self._by_digest.get(digest(text))

    def caller(self, text: str) -> Caller | None:
        """Who sends this key or user token; None: nobody we know.

        A user token opens no more than the key that asked for it.
        """
        if not text.startswith(TOKEN_PREFIX):
            key = self.find(text)
            return None if key is None else Caller(frozenset(key.rights), key=key.sha256)
        self._look()
        claims = read_token(text, self.signing, time.time())
        if claims is None or (key := self._by_digest.get(claims.by)) is None:
            return None
        return Caller(OF_A_USER & frozenset(key.rights), claims.user, key.sha256)

    def user_token(self, user: str, by: str, lives_s: int) -> tuple[str, int]:
        """A user token, and when it expires, Unix time in seconds.

        Args:
            user: pseudonym.
            by: digest of the API key that asks for it.
            lives_s: seconds until it expires.
        """
        claims = Claims(user, int(time.time()) + lives_s, by)
        return write_token(claims, self.signing), claims.expires

    def wait_s(self, caller: Caller) -> float:
        """Seconds until this caller may ask; 0: now, and it counts."""
        counted = caller.user or caller.key
        if self.rate is None or counted == digest(self.own):
            return 0.0
        now = time.monotonic()
        fresh = Bucket(self.rate, self.rate * BURST_S, now)
        bucket = self._buckets.setdefault(counted, fresh)
        self._buckets.move_to_end(counted)
        while len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return bucket.take(now)

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
        self._buckets.clear()
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
        path = scope["path"]
        if path in OPEN:
            return self._app
        right = needed(scope["method"], path)
        return refused(self._keys, Headers(scope=scope), right, path) or self._app


def needed(method: str, path: str) -> Right | None:
    """The right that a request takes; None: all of them."""
    above = path[: path.find("/", 1) + 1]
    of_folder = NEEDED.get(above) if above else None
    # What is deleted is named by an id, and any word may be one: `token`, too.
    return of_folder if method == "DELETE" else NEEDED.get(path, of_folder)


def refused(
    keys: Keys, headers: Mapping[str, str], right: Right | None, path: str
) -> Response | None:
    """The answer to whoever may not ask; who may is the current request's caller from then on.

    Args:
        keys: that are known.
        headers: of the request, their names in small letters.
        right: that it takes; None: all of them.
        path: what it asks.
    """
    text = _text_of(headers)
    caller = keys.caller(text) if text else None
    if caller is None:
        return _unauthorised(sent=text is not None)
    if not ({right} if right else set(RIGHTS)) <= caller.rights:
        lacks = f": it lacks the right `{right}`" if right else ""
        return refusal(403, [((), f"this key does not open {path}{lacks}", "forbidden")])
    if wait := keys.wait_s(caller):
        return _too_many(wait)
    current().caller = caller
    return None


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
