"""Telling a receiver by a signed POST, as Standard Webhooks has it.

    webhook-id: msg_...                 one for all attempts: a receiver drops what it has
    webhook-timestamp: 1764460800       seconds; a receiver refuses what is old
    webhook-signature: v1,BASE64        HMAC-SHA256 of "{id}.{timestamp}.{body}"

Source: https://www.standardwebhooks.com, whose libraries verify it in most languages.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from recsys.config import Webhook
from recsys.errors import RecipeError

#: Environment variable with the secret: `whsec_` and base64 of 24 to 64 bytes.
SECRET_VARIABLE = "RAYCOMMEND_WEBHOOK_SECRET"
_PREFIX, _KEY_BYTES = "whsec_", range(24, 65)
#: Answers after which another attempt may help, beside those of 500 and more.
_PASSING = (408, 429)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A POST that is redirected would become a GET without a body, at whatever host is named."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


@dataclass(frozen=True)
class WebhookSender:
    """Tells a receiver.

    Attributes:
        settings: of the recipe; without a URL nobody is told.
        key: of the signatures.
    """

    settings: Webhook
    key: bytes

    @staticmethod
    def of(settings: Webhook) -> WebhookSender:
        """The sender of a recipe.

        Raises:
            RecipeError: there is a URL, and no secret in the environment, or none that is one.
        """
        return WebhookSender(settings, b"" if settings.url is None else _key())

    def send(
        self, kind: str, data: dict[str, Any], sleep: Callable[[float], None] = time.sleep
    ) -> str | None:
        """Tell it, again where that may help.

        Args:
            kind: such as `night.finished`.
            data: plain data.
            sleep: between attempts.

        Returns:
            Why it was not told; None: it was, or nobody is to be.
        """
        if self.settings.url is None:
            return None
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        body = json.dumps({"type": kind, "timestamp": at, "data": data}).encode()
        message, why = f"msg_{uuid.uuid4().hex}", ""
        for attempt in range(self.settings.attempts):
            if attempt:
                sleep(2.0 ** (attempt - 1))
            why, may_help = self._attempt(message, body)
            if not why:
                return None
            if not may_help:
                break
        # Not the URL: with many receivers its path is the password.
        return f"{urlsplit(self.settings.url).hostname}: {why}"

    def _attempt(self, message: str, body: bytes) -> tuple[str, bool]:
        """Why an attempt failed, empty if it did not; and whether another one may help."""
        at = int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": "raycommend",
            "webhook-id": message,
            "webhook-timestamp": str(at),
            "webhook-signature": signature(self.key, message, at, body),
        }
        request = urllib.request.Request(str(self.settings.url), body, headers)
        try:
            _opener.open(request, timeout=self.settings.timeout_s).close()
        except urllib.error.HTTPError as error:
            with error:
                return f"answers {error.code}", error.code >= 500 or error.code in _PASSING
        except OSError as error:
            reason = getattr(error, "reason", error)
            return f"does not answer: {reason or type(error).__name__}", True
        except (HTTPException, ValueError) as error:  # their texts may hold the URL
            return f"does not answer: {type(error).__name__}", True
        return "", False


def signature(key: bytes, message: str, timestamp: int, body: bytes) -> str:
    """The header that proves who sent a body, and when."""
    signed = f"{message}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def _key() -> bytes:
    secret = os.environ.get(SECRET_VARIABLE, "")
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError:  # no base64, or no ASCII
        key = b""
    if not secret.startswith(_PREFIX) or len(key) not in _KEY_BYTES:
        problem = "is no secret of a webhook" if secret else "is not set"
        raise RecipeError(
            f"{SECRET_VARIABLE} {problem}, and nightly.webhook.url names a receiver",
            where="environment", field="nightly.webhook.url",
            fix=f'set {SECRET_VARIABLE} to "{_PREFIX}$(openssl rand -base64 32)", here and at the '
            "receiver",
        )  # fmt: skip
    return key
