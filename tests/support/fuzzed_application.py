"""The HTTP application for hostile requests, and what is wrong with an answer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from bundles import make_recipe, version_in
from services import make_service
from starlette.types import ASGIApp

from serve.access.key_file import KeyFile
from serve.http.routes import build_http
from serve.schemas.responses import Problems

KEY = "0123456789abcdef0123456789abcdef"


def application(folder: Path, language_model: Path, bundle: Path, **serve: Any) -> ASGIApp:
    """The application with a real bundle and a real store, without Ray."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYCOMMEND_PSEUDONYM_KEY", KEY)
        recipe = make_recipe(
            folder,
            language_model,
            serve={"max_k": 50, "default_k": 5, "max_candidates": 40, **serve},
        )
        service = make_service(recipe)
    asyncio.run(service.load(bundle, version_in(bundle)))
    return build_http(service)


def with_keys(folder: Path, language_model: Path, bundle: Path) -> ASGIApp:
    """The same with keys."""
    KeyFile().write(folder / "keys.json")
    access = {"keys": str(folder / "keys.json")}
    return application(folder, language_model, bundle, access=access)


def complaints(status: int, headers: Any, body: bytes) -> list[str]:
    """What is wrong with an answer, whatever the question was."""
    if status >= 500:
        return [f"{status}: {body!r:.300}"]
    kind = next(iter(headers["content-type"]))
    if kind != "application/json":
        return [f"{status} as {kind}"]
    json.loads(body)
    if status >= 400:
        Problems.model_validate_json(body)
    return []
