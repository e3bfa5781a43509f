"""Who takes the champion, and who does not; a service that runs: tests/serve/running."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import make_bundle
from http_receiver import receiving
from tiny import KEY, KEY_ENV, tiny_recipe, tiny_recipe_file

from benchmarks.ports import free_ports
from ray_jobs.nights.handover import KEY_VARIABLE, hand_over
from recsys.artifacts.run import Run
from recsys.errors import DataError
from recsys.nightly import NothingToDo


def night(folder: Path, **nightly: object) -> tuple[Run, str, Path]:
    """A run with a champion, its version, and the file of its recipe."""
    run = Run.open(tiny_recipe(folder, nightly=nightly))
    bundle = make_bundle(folder / "bundle", run.recipe, seed=1)
    run.registry.add(bundle.folder, bundle.version)
    run.registry.promote(bundle.version)
    return run, bundle.version, tiny_recipe_file(folder, nightly=nightly)


def test_without_a_champion_or_a_service_there_is_nothing_to_do(tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match="no champion"):
        hand_over(Run.open(tiny_recipe(tmp_path)), tmp_path)
    run, _, file = night(tmp_path)
    with pytest.raises(NothingToDo, match="no service of this run"):
        hand_over(run, file)
    left = run.recipe.service_address_file  # of a service that was killed
    left.parent.mkdir(parents=True)
    left.write_text(f"127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(NothingToDo, match="no service of this run"):
        hand_over(run, file)


def test_a_service_that_is_named_and_gone_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that hands over is run, and its own error told."""
    monkeypatch.setenv(KEY_ENV, KEY)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    run, _, file = night(tmp_path, service_address=address)
    with pytest.raises(DataError, match="no Ray cluster listens there") as error:
        hand_over(run, file)
    assert error.value.field == "nightly.service_address" and error.value.value == address


def test_the_service_is_asked_until_it_tells_the_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret-key")
    with receiving() as service:
        run, champion, file = night(tmp_path, service_url=f"{service.url}/shop/", service_wait_s=9)
        service.answer = {"arms": [{"version": "other"}, {"version": champion}]}
        service.statuses = [503]
        assert hand_over(run, file) == [f"the service answers with {champion}"]
        first, _ = service.got
        assert first.path == "/shop/model" and first.headers["authorization"] == "Bearer secret-key"


@pytest.mark.parametrize(
    ("answer", "told"), [({"arms": [{"version": "old"}]}, "tells old"), ({}, "tells nothing")]
)
def test_a_service_that_keeps_another_bundle_is_told(
    answer: dict[str, object], told: str, tmp_path: Path
) -> None:
    with receiving() as service:
        service.answer = answer
        run, champion, file = night(tmp_path, service_url=service.url, service_wait_s=0.1)
        with pytest.raises(DataError, match=told) as error:
            hand_over(run, file)
    assert champion in str(error.value) and error.value.value == service.url
    assert run.registry.champion() == champion
