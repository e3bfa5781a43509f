"""What a start checks first, tries again and tells; where a service's own files lie."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from bundles import KEY, make_recipe

from benchmarks.ports import free_ports
from recsys.config import Recipe
from recsys.errors import DataError, RecipeError
from recsys.state import CLOCK_FILE
from recsys.storage.scratch import Scratch
from serve.__main__ import command_of, main
from serve.launch import checks, run
from serve.launch.checks import warnings
from serve.launch.deploying import _cause
from serve.launch.own_files import OwnFiles


@pytest.fixture
def recipe(tmp_path: Path, language_model: Path) -> Recipe:
    return make_recipe(tmp_path / "run", language_model, serve={"port": free_ports(1)[0]})


def with_serve(recipe: Recipe, **changes: Any) -> Recipe:
    return recipe.model_copy(update={"serve": recipe.serve.model_copy(update=changes)})


@pytest.mark.parametrize(
    ("host", "is_public"),
    [("127.0.0.1", False), ("127.8.0.1", False), ("localhost", False), ("::1", False),
     ("0.0.0.0", True), ("::", True), ("10.0.0.4", True), ("shop", True)],
)  # fmt: skip
def test_a_public_host_without_keys_is_warned_of(
    recipe: Recipe, tmp_path: Path, host: str, is_public: bool
) -> None:
    told = warnings(with_serve(recipe, host=host))
    assert [host in each for each in told] == [True] * is_public
    keys = recipe.serve.access.model_copy(update={"keys": str(tmp_path / "keys.json")})
    assert warnings(with_serve(recipe, host=host, access=keys)) == []


def test_a_service_that_goes_by_the_clock_of_a_replay_says_so(recipe, monkeypatch):
    assert warnings(recipe) == []
    monkeypatch.setenv(CLOCK_FILE, "/replay/clock")
    (warning,) = warnings(recipe)
    assert warning.endswith("the service's time is that of /replay/clock")


def test_what_is_cheap_to_see_is_seen_before_the_bundle_is_read(
    recipe: Recipe, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("RAYCOMMEND_PSEUDONYM_KEY", KEY)
    broken = shutil.copytree(bundle, tmp_path / "broken")
    (broken / "vectors.npy").write_bytes(b"damaged")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.resolved()))
    arguments = ["--config", str(path), "--bundle", str(broken)]
    with socket.create_server(("127.0.0.1", recipe.serve.port)):
        for more in ([], ["--dry-run"]):
            assert main([*arguments, *more]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert "port in use" in line and "serve.port" in line


def test_an_address_where_nobody_listens_is_told_at_once(recipe: Recipe) -> None:
    (port,) = free_ports(1)
    for address in ("auto", "local", "ray://head:10001/x"):
        checks.check_address(address)
    with pytest.raises(DataError, match="no Ray cluster listens there") as error:
        checks.check_address(f"127.0.0.1:{port}")
    assert error.value.field == "ray.address"


def test_a_run_that_takes_no_file_is_told(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYCOMMEND_PSEUDONYM_KEY", KEY)
    (tmp_path / "file").touch()
    elsewhere = recipe.model_copy(update={"run_dir": str(tmp_path / "file" / "run")})
    with pytest.raises(DataError, match="takes no file") as error:
        checks.check_start(elsewhere, "local")
    assert error.value.field == "run_dir"


class TestAttempts:
    def start(self, recipe: Recipe, failures: list[Exception]) -> Any:
        left = list(failures)

        def local(stack: ExitStack, recipe: Recipe) -> Any:
            stack.callback(ended.append, len(left))
            if left:
                raise left.pop(0)
            return "up"

        ended: list[int] = []
        with ExitStack() as stack:
            cluster = run.start_cluster(stack, recipe, "local", local)
            assert len(ended) == len(failures), "what did not come up is ended, what is up is not"
        return cluster

    def test_a_ray_that_does_not_come_up_is_started_again(
        self, recipe: Recipe, capsys: pytest.CaptureFixture[str]
    ) -> None:
        troubles: list[Exception] = [TimeoutError("node timed out\ntrace"), RuntimeError()]
        assert self.start(recipe, troubles) == "up"
        first, second = capsys.readouterr().out.splitlines()
        assert first.startswith("Ray did not start (node timed out), the load is ")
        assert second.startswith("Ray did not start (RuntimeError), the load is ")

    def test_in_the_end_one_line_says_why(self, recipe: Recipe) -> None:
        with pytest.raises(DataError, match="does not start on this machine: dead") as error:
            self.start(recipe, [RuntimeError("dead")] * run.ATTEMPTS)
        assert error.value.where == OwnFiles.of(recipe).logs

    def test_a_mistake_is_not_repeated(self, recipe: Recipe) -> None:
        with pytest.raises(RecipeError, match="wrong"):
            self.start(recipe, [RecipeError("wrong", fix="right it"), RuntimeError("not reached")])


def test_of_a_failed_application_the_error_of_ours_is_told() -> None:
    trace = (
        "The deployment failed to start 3 times in a row.\nray::ServeReplica\n  File ...\n"
        "recsys.errors.DataError: /run/bundle: prepared under another key (run `recsys prepare`)\n"
        "more of it\n"
    )
    told = "/run/bundle: prepared under another key (run `recsys prepare`)"
    replicas = {"Ranking": {"message": trace}}
    assert _cause({"message": "failed to update", "deployments": replicas}) == told
    assert _cause({"message": "first\nlast"}) == "last"
    assert _cause({"status": "UNHEALTHY"}) == "status UNHEALTHY"


def test_the_printed_update_works_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["serve.port=8001", "serve.verbs={purchase: 'played {}'}"]
    joined = [*overrides, "ray.address=10.0.0.3:6379"]  # of the update before
    given = SimpleNamespace(config="my shop.yaml", overrides=joined, bundle=None)
    line = run.update_command(command_of(given), "10.0.0.4:6379")
    first, program, *words = shlex.split(line)
    assert first == "RAY_AUTH_MODE=token"
    assert os.access(program, os.X_OK)
    assert words == [
        "serve", "--config", str(tmp_path / "my shop.yaml"), "--set", overrides[0], "--set",
        overrides[1], "--set", "ray.address=10.0.0.4:6379",
    ]  # fmt: skip


def test_a_service_shows_its_own_files_and_keeps_its_logs(recipe: Recipe) -> None:
    files = OwnFiles.of(recipe)
    for round_ in ("first", "second"):
        scratch = Scratch.make("service", recipe.root)
        session = scratch.folder / "ray" / "session_2026-01-02"
        (session / "logs" / "serve").mkdir(parents=True)
        (session.parent / "session_latest").symlink_to(session.name)
        (session / "logs" / "serve" / "replica.log").write_text(round_)
        (session / "prom_metrics_service_discovery.json").write_text(f'["{round_}"]')
        files.link(session)
        assert files.targets.read_text() == f'["{round_}"]'
        assert (files.logs / "serve" / "replica.log").read_text() == round_
        files.keep(scratch)
        scratch.clear()
        assert not files.targets.is_symlink()
        assert not scratch.folder.exists()
        assert not files.logs.is_symlink()
        assert (files.logs / "serve" / "replica.log").read_text() == round_
    assert (files.folder / "logs-before" / "serve" / "replica.log").read_text() == "first"
