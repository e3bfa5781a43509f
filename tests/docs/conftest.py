from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

HOOKS = Path(__file__).parents[2] / "docs" / "hooks"


@pytest.fixture(scope="session")
def recipe_reference() -> ModuleType:
    """The script, imported from its file: `docs/hooks` is no package."""
    spec = importlib.util.spec_from_file_location("recipe_reference", HOOKS / "recipe_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
