"""Dry runs, the champion, bundles of another shop, and mistakes in one line."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from bundles import KEY, make_bundle, make_recipe

from recsys.artifacts.bundle import Bundle
from recsys.artifacts.registry import Registry
from recsys.config import load_recipe
from recsys.data.pseudonyms import key_check
from serve.__main__ import main

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


def test_a_dry_run_sees_the_ports_that_haproxy_takes(
    config: Path, bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("RAY_SERVE_HAPROXY_METRICS_PORT", str(port))
        assert main(["--config", str(config), "--bundle", str(bundle), "--dry-run"]) == 2
    assert f"[RAY_SERVE_HAPROXY_METRICS_PORT] port in use (got {port})" in capsys.readouterr().err


def test_dry_run_tells_the_plan(
    config: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", str(config), "--dry-run", "--set", "serve.port=8001"]
    assert main([*arguments, "--bundle", str(bundle), "--set", "serve.grpc_port=9001"]) == 0
    printed = capsys.readouterr().out
    assert "127.0.0.1:8001, gRPC at port 9001" in printed
    assert all(line.startswith("would ") for line in printed.splitlines())


def test_the_plan_names_the_arms(
    config: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = [{"name": "a"}, {"name": "b", "bundle": str(bundle), "shadow": True}]
    given = ["--config", str(config), "--dry-run", "--bundle", str(bundle), "--set"]
    assert main([*given, f"serve.arms={json.dumps(arms)}"]) == 0
    printed = capsys.readouterr().out
    assert "would have arm a: the same bundle, weight 1\n" in printed
    assert f"would have arm b: {Bundle.open(bundle).version}, shadow" in printed
    arms[1]["bundle"] = str(tmp_path / "nowhere")
    assert main([*given, f"serve.arms={json.dumps(arms)}"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_the_plan_names_the_store_and_no_password(
    config: Path, bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYCOMMEND_REDIS_URL", "redis://:secret@127.0.0.1:1/0")
    arguments = ["--config", str(config), "--dry-run", "--bundle", str(bundle)]
    name = load_recipe(config).name
    redis = [*arguments, "--set", "serve.state.backend=redis"]
    for more, told in (
        (redis, f"Redis, $RAYCOMMEND_REDIS_URL, keys {name}:*"),
        ([*redis, "--set", "serve.state.url=redis://127.0.0.1:2"], "Redis, redis://127.0.0.1:2,"),
        ([*redis, "--set", "serve.state.prefix='{name}-b'"], f"keys {name}-b:*"),
        (arguments, "state.sqlite"),
    ):
        assert main(more) == 0
        printed = capsys.readouterr().out
        assert told in printed and "secret" not in printed


def test_the_champion_is_served(
    config: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", str(config), "--dry-run"]) == 2
    assert "no champion yet" in capsys.readouterr().err
    registry = Registry(tmp_path / "registry")
    registry.add(bundle, "v1")
    registry.promote("v1")
    assert main(["--config", str(config), "--dry-run"]) == 0
    assert "registry/bundles/v1" in capsys.readouterr().out


class TestAnotherShopsBundle:
    """Its pseudonyms are of another key: refused before Ray starts, at a dry run and at a start."""

    @pytest.fixture
    def foreign(self, tmp_path: Path, language_model: Path) -> Path:
        recipe = make_recipe(tmp_path / "run", language_model)
        return make_bundle(tmp_path / "foreign", recipe, seed=3, key_check="0" * 16).folder

    def refused(
        self, config: Path, more: list[str],
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    ) -> str:  # fmt: skip
        monkeypatch.setenv("RAYCOMMEND_PSEUDONYM_KEY", KEY)
        messages = []
        for dry in ([], ["--dry-run"]):
            assert main(["--config", str(config), *more, *dry]) == 2
            printed = capsys.readouterr()
            assert printed.out == "" and printed.err.count("\n") == 1
            messages.append(printed.err)
        assert messages[0] == messages[1]
        assert "0" * 16 in messages[0] and key_check(KEY.encode()) in messages[0]
        assert "RAYCOMMEND_PSEUDONYM_KEY" in messages[0]
        return messages[0]

    def test_as_champion(
        self, config: Path, foreign: Path, tmp_path: Path,
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        registry = Registry(tmp_path / "registry")
        registry.add(foreign, "v1")
        registry.promote("v1")
        told = self.refused(config, [], capsys, monkeypatch)
        assert f"serve: {registry.root}: [key_check]" in told and "promote.registry" in told

    def test_by_its_folder(
        self, config: Path, foreign: Path,
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        told = self.refused(config, ["--bundle", str(foreign)], capsys, monkeypatch)
        assert f"serve: {foreign}: [key_check]" in told

    def test_as_an_arm(
        self, config: Path, bundle: Path, foreign: Path,
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        arms = [{"name": "a"}, {"name": "b", "bundle": str(foreign), "shadow": True}]
        more = ["--bundle", str(bundle), "--set", f"serve.arms={json.dumps(arms)}"]
        assert f"serve: {foreign}: [key_check]" in self.refused(config, more, capsys, monkeypatch)

    def test_by_its_name(
        self, config: Path, tmp_path: Path, language_model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        grocer = make_recipe(tmp_path / "run", language_model, name="grocer")
        registry = Registry(tmp_path / "registry")
        registry.add(make_bundle(tmp_path / "grocer", grocer, seed=3).folder, "v1")
        registry.promote("v1")
        assert main(["--config", str(config), "--dry-run"]) == 2
        told = capsys.readouterr().err
        assert "recipe grocer" in told and str(registry.root) in told


def test_a_champion_of_before_is_found_where_it_lies(
    config: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Recipes that name no registry once shared one."""
    monkeypatch.chdir(tmp_path)
    former, version = Registry(tmp_path / "runs" / "registry"), Bundle.open(bundle).version
    former.add(bundle, version)
    former.promote(version)
    default = ["--config", str(config), "--dry-run", "--set"]
    assert main([*default, "promote.registry=runs/registry/{name}"]) == 2
    assert "set promote.registry to runs/registry" in capsys.readouterr().err
    assert main([*default, "promote.registry=runs/registry"]) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--config", "missing.yaml"], "no such recipe"),
        (["--set", "serve.prot=1"], "serve.port"),
        (["--bundle", "nowhere"], "no bundle here"),
        (["--set", "serve.host=192.0.2.1"], "serve.host"),
    ],
)
def test_mistakes_are_one_line(
    config: Path, bundle: Path, arguments: list[str], told: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("RAYCOMMEND_PSEUDONYM_KEY", "0123456789abcdef")
    status = main(["--config", str(config), "--bundle", str(bundle), *arguments])
    error = capsys.readouterr().err
    assert status == 2
    assert told in error
    assert error.count("\n") == 1
