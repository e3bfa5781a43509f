from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from small_recipe import SMALL


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path
