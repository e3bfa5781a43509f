from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundles import make_recipe

from serve.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


def test_paths_are_absolute_for_the_replicas(
    tmp_path: Path, language_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.of(
        make_recipe(
            Path("run"), language_model,
            privacy={"key_file": "k"}, serve={"state": {"path": "s.sqlite"}},
        )
    )  # fmt: skip
    assert settings.root == tmp_path / "run"
    assert settings.privacy.key_file == str(tmp_path / "k")
    assert settings.serve.state.path == str(tmp_path / "s.sqlite")
    assert Settings.model_validate(json.loads(settings.model_dump_json())) == settings
