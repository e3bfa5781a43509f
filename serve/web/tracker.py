"""`GET /tracker.js`: the script with which a shop's pages send their events."""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

_SCRIPT = Path(__file__).with_suffix(".js").read_bytes()
_HEADERS = {
    "Cache-Control": "public, max-age=3600",
    "ETag": f'"{hashlib.sha256(_SCRIPT).hexdigest()[:32]}"',
}


def tracker(request: Request) -> Response:
    """The script; 304 to a browser that has it."""
    if _HEADERS["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=_HEADERS)
    return Response(_SCRIPT, headers=_HEADERS, media_type="text/javascript")
