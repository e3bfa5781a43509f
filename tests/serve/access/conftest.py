from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from access_keys import SHOP, add_key
from monitoring import Tally
from services import make_service

from recsys.config import Recipe
from serve.core.service import Service
from serve.schemas.callers import RIGHTS


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "keys.json"


@pytest.fixture
def texts(key_file: Path) -> dict[str, str]:
    """A key of each right alone."""
    return {right: add_key(key_file, f"only-{right}", right) for right in RIGHTS}


@pytest.fixture
def serve_settings(key_file: Path) -> dict[str, Any]:
    return {"access": {"keys": str(key_file), "origins": [SHOP]}}


@pytest.fixture
def service(texts: dict[str, str], recipe: Recipe, metrics: Tally) -> Service:
    """Without a model; it asks for keys."""
    return make_service(recipe, metrics)
