"""The keys that a running service knows: read again when their file changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from recsys.errors import DataError
from serve.access.key_file import Key, KeyFile, digest
from serve.access.rate_limit import RateLimit
from serve.schemas.callers import (
    RIGHTS,
    TOKEN_PREFIX,
    USER_TOKEN_RIGHTS,
    Caller,
    Claims,
    read_token,
    write_token,
)

logger = logging.getLogger("ray.serve")

#: Seconds between two looks at the key file.
LOOK_S = 1.0


class KeyRing:
    """The keys of a file, and the user tokens signed for them; the last good ones if it breaks.

    Args:
        path: of the file.
        own: text of the service's own key, which opens everything.
        rate: requests a second that each key, and each user token's user, may ask of this replica;
            None: no bound.
        signing: key of the user tokens, see `callers`.

    Attributes:
        look_s: seconds between two looks at the file.
        clock: Unix time, seconds: user tokens expire by it.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, path: Path, own: str, rate: float | None, signing: bytes = b"") -> None:
        self._path, self._signing = path, signing
        self._own = Key(name="recsys-serve", sha256=digest(own), rights=RIGHTS)
        self._limit = None if rate is None else RateLimit(rate)
        self.look_s = LOOK_S
        self.clock: Callable[[], float] = time.time
        self._by_digest: dict[str, Key] = {}
        self._looked = float("-inf")
        self._stamp: tuple[int, int] | None = None
        self._load()

    def find(self, text: str) -> Key | None:
        """The key of this text, if there is one."""
        self._look()
        return self._by_digest.get(digest(text))

    def authenticate(self, text: str) -> Caller | None:
        """The caller with this key or user token; None: it is not known.

        A user token opens no more than the key that asked for it.
        """
        if not text.startswith(TOKEN_PREFIX):
            key = self.find(text)
            return None if key is None else Caller(frozenset(key.rights), key=key.sha256)
        self._look()
        claims = read_token(text, self._signing, self.clock())
        if claims is None or (key := self._by_digest.get(claims.by)) is None:
            return None
        return Caller(USER_TOKEN_RIGHTS & frozenset(key.rights), claims.user, key.sha256)

    def user_token(self, user: str, by: str, lives_s: int) -> tuple[str, int]:
        """Make a user token.

        Args:
            user: pseudonym.
            by: digest of the requesting API key.
            lives_s: seconds until it expires.

        Returns:
            The token, and when it expires, Unix time in seconds.
        """
        claims = Claims(user, int(self.clock()) + lives_s, by)
        return write_token(claims, self._signing), claims.expires

    def wait_s(self, caller: Caller) -> float:
        """Seconds until this caller may ask; 0: now, and it counts."""
        counted = caller.user or caller.key
        if self._limit is None or counted == self._own.sha256:
            return 0.0
        return self._limit.wait_s(counted)

    def _look(self) -> None:
        if time.monotonic() - self._looked < self.look_s:
            return
        try:
            self._load()
        except DataError as error:
            logger.error("keeping the last good keys: %s", error)

    def _load(self) -> None:
        self._looked = time.monotonic()
        stamp = _stamp(self._path)
        if self._stamp is not None and stamp == self._stamp:
            return
        keys = KeyFile.read(self._path).keys
        self._by_digest = {key.sha256: key for key in (*keys, self._own)}
        if self._limit is not None:
            self._limit.clear()
        self._stamp = stamp


def _stamp(path: Path) -> tuple[int, int] | None:
    """What differs between two versions of a file; None: it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
