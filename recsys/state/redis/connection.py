"""A connection to a Redis or Valkey server whose errors name the server and no password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from recsys.errors import DataError

#: How long a connection may take, and an answer. A chunk of a seed takes some 15 ms.
CONNECT_S, ANSWER_S = 2.0, 5.0
_FIELD = "serve.state.url"
_FIX = (
    "see that the server runs, accepts this user and writes, and that serve.state.url, or "
    "RAYCOMMEND_REDIS_URL, names it"
)


class Connection:
    """One pool of connections.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`, as the package `redis` reads it.

    Attributes:
        client: of the package `redis`.
        name: the server's address, for messages.

    Raises:
        DataError: the URL is none.
    """

    def __init__(self, url: str) -> None:
        self.client = _client(url)
        given = self.client.connection_pool.connection_kwargs
        place = given.get("path") or f"{given.get('host', 'localhost')}:{given.get('port', 6379)}"
        self.name = f"redis {place}/{given.get('db', 0)}"
        self._password: str | None = given.get("password")

    @contextmanager
    def named(self) -> Iterator[None]:
        """Turn the client's errors into ones that name the server and the fix, not the password.

        Their cause is left out: a server may repeat in its message what it was sent.
        """
        try:
            yield
        except (redis.RedisError, OSError) as error:
            text = str(error).rstrip(".")
            if self._password:
                text = text.replace(self._password, "***")
            raise DataError(
                _problem(error),  # without the address: clients of the service see this much
                where=f"{self.name} ({text})", field=_FIELD, fix=_FIX,
            ) from None  # fmt: skip


def _problem(error: Exception) -> str:
    if isinstance(error, redis.TimeoutError):
        return "the store of users does not answer in time"
    if isinstance(error, redis.AuthenticationError):
        return "the store of users does not accept this user or password"
    if isinstance(error, redis.ConnectionError | OSError):
        return "the store of users cannot be reached"
    return "the store of users refuses a command"


def _client(url: str) -> redis.Redis:
    try:
        # One new try, at once: a firewall or a restarted server may have dropped the connection. An
        # append whose answer was lost on the way is found held then, and counted as not new.
        client = redis.Redis.from_url(
            url,
            socket_connect_timeout=CONNECT_S,
            socket_timeout=ANSWER_S,
            health_check_interval=30,
            retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),
        )
        # Now, not at the first use: options that do not exist, a host that cannot be one.
        client.connection_pool.make_connection()
        client.connection_pool.connection_kwargs.get("host", "").encode("idna")
    except (TypeError, ValueError):  # the text may hold a part of the password
        raise DataError(
            "is not the URL of a Redis server", field=_FIELD,
            fix="write redis://HOST:PORT/DB, rediss://... or unix://PATH; in user and password "
            "write all but letters and digits as %XX",
        ) from None  # fmt: skip
    return client
