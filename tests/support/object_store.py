"""An S3-compatible server on loopback, with faults of the network and of the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cached_property
from typing import Any
from unittest.mock import patch

import boto3
import pytest
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from recsys.storage import patience

KEY_ID, BUCKET = "rehearsal", "shop"

#: (method, path of the request) -> whether a fault meets it.
Meets = Callable[[str, str], bool]
Environ = dict[str, Any]


class ObjectStore:
    """A server with one bucket, and what is wrong with it.

    Attributes:
        url: of the server.
        requests: method and path of each that came.
    """

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._port = 0
        self._server: BaseWSGIServer | None = None
        self._fault: tuple[Meets, Callable[[Environ, Any], Iterable[bytes]]] | None = None
        self._left = 0
        self._lock, self._conditional = threading.Lock(), threading.Lock()
        self.requests: list[tuple[str, str]] = []
        s3_backends.reset()  # of the whole process
        self.start()
        self.client.create_bucket(Bucket=BUCKET)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def uri(self) -> str:
        return f"s3://{BUCKET}"

    @cached_property
    def client(self) -> Any:
        return boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1",
            aws_access_key_id=KEY_ID, aws_secret_access_key="secret",
        )  # fmt: skip

    def stored(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return sorted(each["Key"] for page in pages for each in page.get("Contents", []))

    def read(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def write(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def remove_bucket(self) -> None:
        for key in self.stored():
            self.client.delete_object(Bucket=BUCKET, Key=key)
        self.client.delete_bucket(Bucket=BUCKET)

    def start(self) -> None:
        """Listen, at the port of before if there was one."""
        server = make_server("127.0.0.1", self._port, self._answer, threaded=True)
        server.daemon_threads = True  # type: ignore[attr-defined]
        self._port, self._server = server.server_port, server
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop listening; what was written stays."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _answer(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        if f"Credential={KEY_ID}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            return _refuse(start_response, "403 Forbidden", "InvalidAccessKeyId")
        with self._lock:
            fault = self._fault if self._left > 0 and self._fault else None
            is_met = fault is not None and fault[0](method, path)
            self._left -= is_met
        if fault is not None and is_met:
            return fault[1](environ, start_response)
        # The server looks and writes in two steps.
        with self._conditional if "HTTP_IF_NONE_MATCH" in environ else nullcontext():
            return self._app(environ, start_response)

    @contextmanager
    def fault(
        self, answer: Callable[[Environ, Any], Iterable[bytes]], meets: Meets, times: int
    ) -> Iterator[None]:
        with self._lock:
            self._fault, self._left = (meets, answer), times
        try:
            yield
        finally:
            with self._lock:
                self._fault, self._left = None, 0

    @contextmanager
    def failing(self, meets: Meets, times: int | None = None) -> Iterator[None]:
        """The server answers 500 and does nothing; for good, and then it is not asked for long.

        So many times: it is asked again without a pause.
        """

        def answer(environ: Environ, start_response: Any) -> Iterable[bytes]:
            return _refuse(start_response, "500 Internal Server Error", "InternalError")

        with ExitStack() as stack:
            stack.enter_context(self.fault(answer, meets, times or 1_000_000))
            stack.enter_context(impatient() if times is None else hasty())
            yield

    def failing_after(self, meets: Meets, times: int = 1) -> Any:
        """The server does what it is asked, and answers 500."""

        def answer(environ: Environ, start_response: Any) -> Iterable[bytes]:
            list(self._app(environ, lambda *_: None))
            return _refuse(start_response, "500 Internal Server Error", "InternalError")

        return self.fault(answer, meets, times)

    def truncating(self, meets: Meets, times: int = 1, *, keep: int = 10) -> Any:
        """An answer ends early, and its length is said to be that of the rest."""

        def answer(environ: Environ, start_response: Any) -> Iterable[bytes]:
            return [self._whole(environ, start_response, length=keep)[:keep]]

        return self.fault(answer, meets, times)

    def breaking(self, meets: Meets, times: int = 1) -> Any:
        """The connection ends in the middle of an answer."""

        def answer(environ: Environ, start_response: Any) -> Iterable[bytes]:
            body = self._whole(environ, start_response)
            return [body[: len(body) // 2]]

        return self.fault(answer, meets, times)

    def slow(self, meets: Meets, pause_s: float, times: int = 1_000_000) -> Any:
        """An answer comes in ten parts."""

        def answer(environ: Environ, start_response: Any) -> Iterable[bytes]:
            body = self._whole(environ, start_response)
            step = len(body) // 10 + 1
            for start in range(0, len(body), step):
                time.sleep(pause_s)
                yield body[start : start + step]

        return self.fault(answer, meets, times)

    def _whole(self, environ: Environ, start_response: Any, length: int | None = None) -> bytes:
        told: list[Any] = []
        body = b"".join(self._app(environ, lambda *args: told.extend(args)))
        headers = [(k, v) for k, v in told[1] if k.lower() != "content-length" or length is None]
        if length is not None:
            headers.append(("Content-Length", str(min(length, len(body)))))
        start_response(told[0], headers)
        return body


def _refuse(start_response: Any, status: str, code: str) -> list[bytes]:
    body = f"<Error><Code>{code}</Code><Message>{code}, as told</Message></Error>".encode()
    start_response(status, [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
    return [body]


def impatient() -> Any:
    """In the block, who waits for a store waits for a second."""
    return patch.object(patience, "PATIENCE_S", 1.0)


def hasty() -> Any:
    """In the block, who waits for a store asks again at once."""
    return patch.object(patience, "PAUSE_S", 0.001)


@contextmanager
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """A store that clients of this process and of its children find, with its key."""
    store = ObjectStore()
    for name, value in {
        "AWS_ENDPOINT_URL": store.url,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    try:
        yield store
    finally:
        store.stop()
