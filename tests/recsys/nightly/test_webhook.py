"""Telling a receiver: signed, again where that helps, and never more than told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import time
from collections.abc import Iterator

import pytest
from http_receiver import Got, Receiver, receiving

from recsys.config import Webhook
from recsys.errors import RecipeError
from recsys.nightly.webhook import SECRET_VARIABLE, WebhookSender, signature

KEY = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    with receiving() as found:
        yield found


def sent(receiver: Receiver, **settings: object) -> tuple[str | None, list[float]]:
    """Why it was not told, and the pauses between attempts."""
    pauses: list[float] = []
    sender = WebhookSender.of(Webhook(url=f"{receiver.url}/hook?token=t", **settings))  # type: ignore[arg-type]
    return sender.send("night.finished", {"day": "2026-11-30"}, pauses.append), pauses


def is_genuine(got: Got) -> bool:
    """A receiver's own check, written from the specification."""
    message, at = got.headers["webhook-id"], got.headers["webhook-timestamp"]
    content = b".".join([message.encode(), at.encode(), got.body])
    own = base64.b64encode(hmac.new(KEY, content, hashlib.sha256).digest()).decode()
    version, _, given = got.headers["webhook-signature"].partition(",")
    return version == "v1" and hmac.compare_digest(own, given) and abs(time.time() - int(at)) < 60


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of the specification's reference libraries."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    message, at, body = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(key, message, at, body) == expected


def test_a_receiver_can_tell_who_sent_it(receiver: Receiver) -> None:
    assert sent(receiver) == (None, [])
    (got,) = receiver.got
    assert got.path == "/hook?token=t" and got.headers["content-type"] == "application/json"
    assert is_genuine(got)
    assert not is_genuine(Got(got.path, got.headers, got.body.replace(b"11-30", b"11-29")))
    body = got.json()
    assert body.keys() == {"type", "timestamp", "data"}
    assert (body["type"], body["data"]) == ("night.finished", {"day": "2026-11-30"})


def test_a_receiver_that_fails_is_told_again_under_one_id(receiver: Receiver) -> None:
    receiver.statuses = [500, 429, 503]
    assert sent(receiver) == (None, [1, 2, 4])
    assert len(receiver.got) == 4 and all(map(is_genuine, receiver.got))
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 1


@pytest.mark.parametrize(
    ("statuses", "told", "num_attempts"),
    [([500, 502], "answers 502", 2), ([404], "answers 404", 1), ([302], "answers 302", 1)],
)
def test_who_cannot_be_told_is_named_without_the_url(
    receiver: Receiver, statuses: list[int], told: str, num_attempts: int
) -> None:
    """Its path may be a password; a redirect is not followed, to wherever it leads."""
    receiver.statuses = statuses
    assert sent(receiver, attempts=2)[0] == f"127.0.0.1: {told}"
    assert len(receiver.got) == num_attempts


def test_nobody_listens_or_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        gone = Receiver(f"http://127.0.0.1:{silent.getsockname()[1]}")
        why, _ = sent(gone, attempts=1, timeout_s=0.1)
        assert why is not None and "timed out" in why
    why, pauses = sent(gone, attempts=3)
    assert why is not None and "refused" in why and pauses == [1, 2]


def test_without_a_url_nobody_is_told_and_no_secret_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    assert WebhookSender.of(Webhook()).send("night.failed", {}) is None


@pytest.mark.parametrize(
    "secret", [None, "", "hunter2", "whsec_", "whsec_c2hvcnQ=", "whsec_%%%", "whsec_é"]
)
def test_a_url_without_a_secret_is_refused(
    secret: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    if secret is not None:
        monkeypatch.setenv(SECRET_VARIABLE, secret)
    with pytest.raises(RecipeError, match=SECRET_VARIABLE) as error:
        WebhookSender.of(Webhook(url="https://chat.example/hook"))
    assert "openssl rand -base64 32" in error.value.fix
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["chat.example", "ftp://chat.example/x", "https://", "https://chat.example/é"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is no URL"):
        Webhook(url=url)
