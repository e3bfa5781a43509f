"""Which right a path takes."""

from __future__ import annotations

from serve.schemas.callers import Right

#: Paths that take no key: health, documentation, the tracker.
PUBLIC_PATHS = frozenset({
    "/healthz", "/readyz", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json",
    "/tracker.js",
})  # fmt: skip
#: Path -> the right that it takes; with a slash at its end, of all paths below. A path that is not
#: listed takes a key with all rights: a new route that was forgotten here is closed.
REQUIRED_RIGHTS: dict[str, Right] = {
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


def required_right(method: str, path: str) -> Right | None:
    """The right that a request takes; None: all of them."""
    above = path[: path.find("/", 1) + 1]
    of_folder = REQUIRED_RIGHTS.get(above) if above else None
    # What is deleted is named by an id, and any word may be one: `token`, too.
    return of_folder if method == "DELETE" else REQUIRED_RIGHTS.get(path, of_folder)
