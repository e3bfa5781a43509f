"""New bundles while requests are answered, broken ones, and a second service."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from bundles import diverge, version_in
from load import Load
from running_service import Running

from ray_jobs.nights.handover import KEY_VARIABLE, hand_over
from recsys.artifacts.run import Run
from recsys.config import load_recipe

pytestmark = [pytest.mark.serve, pytest.mark.ray]


def test_a_second_service_is_refused_at_once(running: Running) -> None:
    done = running.run()
    assert done.returncode == 2
    assert "port in use" in done.stderr
    assert "serve.port" in done.stderr
    assert done.stderr.count("\n") == 1
    assert running.model()["failed_update"] is None


def test_a_new_bundle_is_taken_while_requests_are_answered(
    running: Running, bundle: Path, other_bundle: Path
) -> None:
    before = running.replicas()
    plain = {name: value for name, value in running.environment.items() if name[:4] != "RAY_"}
    with Load(running, num_clients=1) as load:
        update = subprocess.run(
            f"{running.printed['update']} --bundle {shlex.quote(str(other_bundle))}", shell=True,
            env=plain, cwd="/", capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
    assert update.returncode == 0, update.stderr
    assert (load.refused, load.broken) == ([], [])
    assert load.versions[0] == version_in(bundle)
    assert load.versions[-1] == version_in(other_bundle)
    assert len(before) == 3  # two that rank, and the language model
    assert before <= running.replicas()


def test_a_broken_bundle_leaves_the_last_good_one(
    running: Running, other_bundle: Path, bundle: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(other_bundle, tmp_path / "broken")
    (broken / "vectors.npy").unlink()
    running.configure(broken)
    running.wait_until_all("failed_update", "a file is missing")
    assert {model["version"] for model in running.models()} == {version_in(other_bundle)}
    assert running.post("/recommend", {"user_id": "u"})["items"]
    running.configure(bundle)
    running.wait_until_all("version", version_in(bundle))
    assert {model["failed_update"] for model in running.models()} == {None}


def test_an_update_that_fails_is_taken_back_and_may_be_tried_again(
    running: Running, bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    """Whole on the outside, its scores are NaN: only a replica that tries it finds out."""
    diverged = diverge(shutil.copytree(other_bundle, tmp_path / "diverged"))
    address = f"ray.address={running.printed['update'].rsplit('=', 1)[1]}"
    before = running.model()["version"]
    for _ in range(2):
        update = running.run("--set", address, "--bundle", str(diverged))
        assert update.returncode == 2
        assert "not finite" in update.stderr
        assert update.stderr.count("\n") == 1
    # Or a new replica would load the broken bundle.
    running.wait_until_all("failed_update", None)
    assert {model["version"] for model in running.models()} == {before}
    update = running.run("--update", "--bundle", str(other_bundle))
    assert update.returncode == 0, update.stderr
    assert running.model()["version"] == version_in(other_bundle)


def test_a_night_hands_the_champion_over(
    running: Running, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service is found by the run's folder, and asked as clients ask it."""
    config = running.command[running.command.index("--config") + 1]
    own = [word for word in running.command if word.startswith("serve.")]
    recipe = load_recipe(
        config, [*own, f"promote.registry={tmp_path}", f"nightly.service_url={running.url}"]
    )
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.resolved()))
    run = Run.open(recipe)
    run.registry.add(bundle, version_in(bundle))
    run.registry.promote(version_in(bundle))
    for name, value in (running.environment | {KEY_VARIABLE: running.key}).items():
        monkeypatch.setenv(name, value)
    told = hand_over(run, tmp_path / "recipe.yaml")
    assert told == [f"the service answers with {version_in(bundle)}"]
    assert running.model()["version"] == version_in(bundle)


def test_a_folder_whose_content_was_replaced_is_taken_anew(
    running: Running, bundle: Path, other_bundle: Path, tmp_path: Path
) -> None:
    """As when `embed` writes the next bundle into the run's folder."""
    address = f"ray.address={running.printed['update'].rsplit('=', 1)[1]}"
    folder = tmp_path / "bundle"
    for source in (bundle, other_bundle):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        update = running.run("--set", address, "--bundle", str(folder))
        assert update.returncode == 0, update.stderr
        assert running.model()["version"] == version_in(source)
        answer = running.post("/rank", {"user_id": "u", "candidates": [{"title": "red cup"}]})
        assert answer["model_version"] == version_in(source)
