"""`recsys keys`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serve.access import command
from serve.access.key_file import KeyFile
from serve.access.key_ring import KeyRing


class TestCommand:
    @pytest.fixture
    def run(self, tmp_path: Path, key_file: Path) -> list[str]:
        path = tmp_path / "recipe.yaml"
        data = {"source": "log", "cuts": {"valid": "2026-01-01", "test": "2026-02-01"}}
        serve = {"access": {"keys": str(key_file)}}
        path.write_text(json.dumps({"name": "shop", "data": data, "serve": serve}))
        return ["--config", str(path)]

    def test_add_list_remove(
        self, run: list[str], key_file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert (
            command.main(["add", "front", "--right", "recommend", "--right", "events", *run]) == 0
        )
        text = capsys.readouterr().out.strip()
        assert text.startswith("rck_") and len(text) > 40
        found = KeyRing(key_file, "own", None).find(text)
        assert found is not None and found.rights == ("recommend", "events")
        assert command.main(["list", *run]) == 0
        assert capsys.readouterr().out.split() == ["front", "recommend,", "events"]
        assert command.main(["add", "front", "--right", "items", *run]) != 0
        assert "another name" in capsys.readouterr().err
        assert command.main(["add", "bad name", "--right", "items", *run]) == 2
        (told,) = capsys.readouterr().err.splitlines()
        assert "'bad name'" in told
        assert command.main(["remove", "front", *run]) == 0
        assert KeyFile.read(key_file).keys == ()
        assert command.main(["remove", "front", *run]) != 0

    def test_a_broken_file_is_not_written_over(self, run: list[str], key_file: Path) -> None:
        key_file.parent.mkdir()
        key_file.write_text("{")
        assert command.main(["add", "front", "--right", "items", *run]) != 0
        assert key_file.read_text() == "{"

    def test_the_recipe_has_to_name_the_file(
        self, run: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert command.main(["list", *run, "--set", "serve.access.keys=null"]) != 0
        assert "serve.access.keys" in capsys.readouterr().err
