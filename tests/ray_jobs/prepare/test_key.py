"""The pseudonym key: made once, and never anew."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

import pytest
from prepare_runs import hashes
from tiny import (
    KEY_ENV,
    prepare_here,
    prepared_in_process,
    tiny_log,
    tiny_recipe,
    tiny_recipe_file,
    user_id,
)

from ray_jobs import cli, prepare
from recsys.artifacts.run import Run
from recsys.data.pseudonyms import pseudonym
from recsys.preparation.prepared import PREPARED, Prepared


def test_a_missing_key_is_made_once(tmp_path: Path) -> None:
    tiny_log(tmp_path / "log")
    recipe = tiny_recipe(tmp_path)
    with prepared_in_process(), patch.dict(os.environ):
        os.environ.pop(KEY_ENV)
        prepare.execute(Run.open(recipe))
        key = (recipe.root / "pseudonym.key").read_bytes()
        first = Prepared.open(recipe.root).users().user_ids
        prepare.execute(Run.open(recipe))
    assert (recipe.root / "pseudonym.key").read_bytes() == key
    assert (recipe.root / "pseudonym.key").stat().st_mode & 0o777 == 0o600
    assert Prepared.open(recipe.root).users().user_ids == first
    assert pseudonym(user_id(0), key.strip()) in first


def test_a_key_that_is_gone_is_not_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_log(tmp_path / "log")
    config = tiny_recipe_file(tmp_path)
    recipe = tiny_recipe(tmp_path)
    prepare_here(recipe)
    before = hashes(recipe.root / PREPARED)
    monkeypatch.delenv(KEY_ENV, raising=False)
    for more in ([], ["--dry-run"]):
        with pytest.raises(SystemExit) as end:
            cli.main(["prepare", "--config", str(config), *more])
        assert end.value.code == 2
        told = capsys.readouterr().err
        assert "the pseudonym key of this run is gone" in told and "restore the file" in told
    assert hashes(recipe.root / PREPARED) == before
    assert not (recipe.root / "pseudonym.key").exists()
