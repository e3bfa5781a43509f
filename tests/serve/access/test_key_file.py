"""The file of API keys: what is on disk, and what a change of it does."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest
from access_keys import add_key
from services import make_service

from recsys.config import Recipe
from recsys.errors import DataError
from serve.access.key_file import KeyFile, digest
from serve.access.key_ring import KeyRing
from serve.schemas.callers import RIGHTS

HASH = "0" * 64


class TestFile:
    def test_it_holds_no_key_and_only_its_owner_reads_it(
        self, key_file: Path, texts: dict[str, str]
    ) -> None:
        content = key_file.read_text()
        assert not any(text in content for text in texts.values())
        assert digest(texts["monitor"]) in content
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600

    def test_a_change_is_known_at_once_and_a_broken_file_changes_nothing(
        self, key_file: Path, texts: dict[str, str]
    ) -> None:
        found = KeyRing(key_file, "own", None)
        found.look_s = 0.0
        assert found.find(texts["monitor"]) is not None
        fresh = add_key(key_file, "fresh", "monitor")
        assert found.find(fresh) is not None
        KeyFile.read(key_file).without("only-monitor").write(key_file)
        assert found.find(texts["monitor"]) is None
        key_file.write_text("{")
        assert found.find(fresh) is not None
        key_file.unlink()
        assert found.find(fresh) is not None
        assert found.find(texts["monitor"]) is None

    def test_a_right_of_an_earlier_release_is_what_it_opened(self, key_file: Path) -> None:
        key_file.parent.mkdir(exist_ok=True)
        old = {"name": "ops", "sha256": HASH, "rights": ["recommend", "admin"]}
        key_file.write_text(json.dumps({"format": 1, "keys": [old]}))
        (key,) = KeyFile.read(key_file).keys
        assert set(key.rights) == set(RIGHTS) - {"events"}

    @pytest.mark.parametrize("name", ["bad name", "", "-x", "a" * 65, "a\n"])
    def test_a_name_that_is_none_is_refused(self, name: str) -> None:
        with pytest.raises(DataError, match="not a name for a key") as caught:
            KeyFile().with_key(name, ("events",))
        assert caught.value.value == name

    def test_it_is_not_read_for_every_request(
        self, key_file: Path, texts: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = KeyRing(key_file, "own", None)
        monkeypatch.setattr(KeyFile, "read", lambda _: pytest.fail("read again"))
        os.utime(key_file, (time.time(), time.time() + 5))
        assert found.find(texts["monitor"]) is not None

    @pytest.mark.parametrize(
        ("content", "field"),
        [
            ("", ""),
            ('{"format": 2}', "format"),
            ("{}", "keys"),
            ('{"keys": [{"name": "a", "sha256": "x", "rights": ["admin"]}]}', "keys.0.sha256"),
            (f'{{"keys": [{{"name": "a", "sha256": "{HASH}", "rights": []}}]}}', "keys.0.rights"),
            (f'{{"keys": [{{"name": "a b", "sha256": "{HASH}"}}]}}', "keys.0.name"),
        ],
    )
    def test_a_strange_file_is_named(self, tmp_path: Path, content: str, field: str) -> None:
        path = tmp_path / "strange.json"
        path.write_text(content)
        with pytest.raises(DataError, match=r"strange\.json") as caught:
            KeyFile.read(path)
        assert field in str(caught.value)

    def test_a_service_does_not_start_without_its_file(self, recipe: Recipe) -> None:
        with pytest.raises(DataError, match="recsys keys add"):
            make_service(recipe)
