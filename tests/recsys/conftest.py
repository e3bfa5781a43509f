from __future__ import annotations

from pathlib import Path

import pytest
from bundles import make_language_model
from tiny import Shop, tiny_shop


@pytest.fixture(scope="session")
def language_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of two layers with random weights."""
    return make_language_model(tmp_path_factory.mktemp("language"))


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The small log, prepared; nobody writes into it."""
    return tiny_shop(tmp_path_factory.mktemp("shop"))
