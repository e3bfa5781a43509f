"""A service whose champion lies in a store: start, a new champion, a rollback."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bundles import make_recipe, version_in
from load import Load
from object_store import ObjectStore
from running_service import ROOT, Running, started

from recsys.artifacts.registry import Registry
from recsys.config import load_recipe
from serve.__main__ import main


def test_a_missing_bucket_and_a_wrong_key_are_one_line(
    config: Path,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def told(*overrides: str) -> str:
        sets = [word for each in overrides for word in ("--set", each)]
        assert main(["--config", str(config), *sets]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        return line

    there = f"promote.registry={store.uri}/registry"
    assert "no champion yet" in told(there)
    assert "there is no such bucket (got 'gone')" in told("promote.registry=s3://gone/registry")
    assert main(["--config", str(config), "--bundle", "ftp://x/y"]) == 2
    assert "no store has URIs of ftp://" in capsys.readouterr().err
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    assert "the store lets us not in" in told(there)


@pytest.mark.serve
@pytest.mark.ray
def test_a_champion_in_a_store_is_served_replaced_and_rolled_back(
    store: ObjectStore, tmp_path: Path, language_model: Path, bundle: Path, other_bundle: Path
) -> None:
    sections = {
        "promote": {"registry": f"{store.uri}/registry"},
        "storage": {"cache_dir": str(tmp_path / "cache")},
    }
    config = tmp_path / "recipe.yaml"
    versions = [version_in(bundle), version_in(other_bundle)]

    def promote(folder: Path) -> None:
        registry = Registry.of(load_recipe(config))
        registry.add(folder, version_in(folder))
        registry.promote(version_in(folder))

    recipe = make_recipe(tmp_path / "run", language_model, **sections)
    config.write_text(yaml.safe_dump(recipe.resolved()))
    promote(bundle)
    with started(tmp_path, language_model, None, **sections) as running:
        assert running.model()["version"] == versions[0]
        assert running.post("/rank", {"user_id": "u", "candidates": [{"title": "red cup"}]})
        promote(other_bundle)
        with Load(running, num_clients=1) as load:
            assert update(running).returncode == 0
        assert (load.refused, load.broken) == ([], [])
        assert [load.versions[0], load.versions[-1]] == versions
        job = [sys.executable, "-m", "ray_jobs.cli", "rollback", "--config", str(config)]
        done = subprocess.run(job, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert f"-> {store.uri}/registry/bundles/{versions[0]}" in done.stdout
        assert update(running).returncode == 0
        running.wait_until_all("version", versions[0])
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 2


def update(running: Running) -> subprocess.CompletedProcess[str]:
    command = running.printed["update"]
    plain = {name: value for name, value in running.environment.items() if name[:4] != "RAY_"}
    assert "--bundle" not in shlex.split(command)
    return subprocess.run(
        command, shell=True, env=plain, cwd=ROOT, capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip
