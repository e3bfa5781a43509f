"""Who asks: an API key, or a browser with a token that the shop's server had made for one user.

A user token is what a key with the right `tokens` asks for (`POST /users/token`), signed with a key
that follows from the pseudonyms', so that every replica reads it and none has to remember it:

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
#: `monitor`: what tells of the service itself.
Right = Literal["recommend", "explain", "events", "items", "erase", "tokens", "monitor"]
RIGHTS: tuple[Right, ...] = get_args(Right)
#: What a user token opens, of its own user.
USER_TOKEN_RIGHTS: frozenset[Right] = frozenset({"recommend", "explain", "events"})

#: Begin of every user token.
TOKEN_PREFIX = "rcu_"


@dataclass(frozen=True)
class Caller:
    """Who asks, and what for.

    Attributes:
        rights: what is open.
        user: the pseudonym of the only user that may be asked for; None: any may.
        key: digest of the API key that vouches for it; empty where none are asked for.
    """

    rights: frozenset[str] = frozenset(RIGHTS)
    user: str | None = None
    key: str = ""

    def may(self, right: Right) -> bool:
        """Whether a right is open."""
        return right in self.rights

    def speaks_for(self, user: str) -> bool:
        """Whether a user, by pseudonym, may be asked for."""
        return self.user is None or hmac.compare_digest(self.user, user)


#: Where the service asks for no keys.
ANYBODY = Caller()


@dataclass(frozen=True)
class Claims:
    """What a user token says.

    Attributes:
        user: pseudonym.
        expires: Unix time, seconds.
        by: digest of the API key that asked for it.
    """

    user: str
    expires: int
    by: str


def token_key(pseudonym_key: bytes) -> bytes:
    """What tokens are signed with."""
    return hmac.digest(pseudonym_key, b"raycommend user token", "sha256")


def write_token(claims: Claims, key: bytes) -> str:
    """A token that says so."""
    body = _encoded(json.dumps(vars(claims), separators=(",", ":")).encode())
    return f"{TOKEN_PREFIX}{body}.{_encoded(_signature(body, key))}"


def read_token(text: str, key: bytes, now: float) -> Claims | None:
    """What a token says; None if it was not signed with this key, or has expired."""
    body, _, signature = text.removeprefix(TOKEN_PREFIX).partition(".")
    if not hmac.compare_digest(_encoded(_signature(body, key)).encode(), signature.encode()):
        return None
    claims = Claims(**_claims(body))
    return claims if now < claims.expires else None


def _claims(body: str) -> Mapping[str, str | int]:
    padded = body + "=" * (-len(body) % 4)
    return dict(json.loads(base64.urlsafe_b64decode(padded)))


def _signature(body: str, key: bytes) -> bytes:
    return hmac.digest(key, body.encode(), "sha256")


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
