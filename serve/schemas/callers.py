"""Callers: an API key, or a browser with a token that the shop's server got for one user.

A key with the right `tokens` asks for a user token (`POST /users/token`). It is signed with a key
that is derived from the pseudonym key, so that every replica reads it and none has to remember it:

    rcu_{claims}.{signature}    both base64url; claims: user (pseudonym), expires (Unix time, s), by

`by` is the digest of the API key that asked: with the key its tokens go. The signature is
HMAC-SHA-256.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

#: What a key opens. `recommend`: lists, for any user; `explain`: what a named user did; `events`:
#: the store of events; `items`: the catalogue; `erase`: users' erasure; `tokens`: user tokens;
#: `monitor`: the state of the service.
Right = Literal["recommend", "explain", "events", "items", "erase", "tokens", "monitor"]
RIGHTS: tuple[Right, ...] = get_args(Right)
#: What a user token opens, of its own user.
USER_TOKEN_RIGHTS: frozenset[Right] = frozenset({"recommend", "explain", "events"})

#: Begin of every user token.
TOKEN_PREFIX = "rcu_"


@dataclass(frozen=True)
class Caller:
    """An authenticated caller.

    Attributes:
        rights: that it has.
        user: pseudonym of the only user that it may ask for; None: any.
        key: digest of its API key, or of the one behind its token; empty without authentication.
    """

    rights: frozenset[str] = frozenset(RIGHTS)
    user: str | None = None
    key: str = ""

    def may(self, right: Right) -> bool:
        """Whether it has a right."""
        return right in self.rights

    def speaks_for(self, user: str) -> bool:
        """Whether it may ask for a user.

        Args:
            user: pseudonym.
        """
        return self.user is None or hmac.compare_digest(self.user, user)


#: The caller where the service asks for no keys.
ANYBODY = Caller()


@dataclass(frozen=True)
class Claims:
    """The claims of a user token.

    Attributes:
        user: pseudonym.
        expires: Unix time, seconds.
        by: digest of the API key that asked for it.
    """

    user: str
    expires: int
    by: str


def token_key(pseudonym_key: bytes) -> bytes:
    """The key that tokens are signed with, derived from the pseudonym key."""
    return hmac.digest(pseudonym_key, b"raycommend user token", "sha256")


def write_token(claims: Claims, key: bytes) -> str:
    """A signed token."""
    body = _encoded(json.dumps(vars(claims), separators=(",", ":")).encode())
    return f"{TOKEN_PREFIX}{body}.{_encoded(_signature(body, key))}"


def read_token(text: str, key: bytes, now: float) -> Claims | None:
    """The claims of a token; None if it was not signed with this key, or has expired."""
    body, _, signature = text.removeprefix(TOKEN_PREFIX).partition(".")
    if not hmac.compare_digest(_encoded(_signature(body, key)).encode(), signature.encode()):
        return None
    claims = Claims(**_claims(body))  # type: ignore[arg-type]
    return claims if now < claims.expires else None


def _claims(body: str) -> Mapping[str, str | int]:
    padded = body + "=" * (-len(body) % 4)
    return dict(json.loads(base64.urlsafe_b64decode(padded)))


def _signature(body: str, key: bytes) -> bytes:
    return hmac.digest(key, body.encode(), "sha256")


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
