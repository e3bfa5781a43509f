"""What is checked and set before anything is started, and the configuration that is sent."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from bundles import KEY, make_bundle, make_recipe

import benchmarks.ports
from recsys.artifacts.bundle import Bundle
from recsys.artifacts.registry import Registry
from recsys.config import Recipe, Serve, load_recipe
from recsys.data.pseudonyms import key_check
from recsys.errors import DataError, RecipeError
from recsys.storage.scratch import MARK
from serve.__main__ import main
from serve.ray.environment import ProcessEnvironment
from serve.ray.ports import BLOCK, END, FIRST, Block, check_ports
from serve.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


@pytest.fixture
def free_ports(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    names = ("http", "grpc", "RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT")
    ports = dict(zip(names, benchmarks.ports.free_ports(len(names)), strict=True))
    for name in names[2:]:
        monkeypatch.setenv(name, str(ports[name]))
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    return ports


def serve_of(recipe: Recipe, **changes: object) -> object:
    return recipe.serve.model_copy(update=changes)


def test_free_ports_pass(recipe: Recipe, free_ports: dict[str, int]) -> None:
    check_ports(serve_of(recipe, port=free_ports["http"]))


@pytest.mark.parametrize(
    ("taken", "field"),
    [
        ("http", "serve.port"),
        ("grpc", "serve.grpc_port"),
        ("RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT"),
        ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT"),
    ],
)
def test_a_taken_port_is_named(
    recipe: Recipe, free_ports: dict[str, int], taken: str, field: str
) -> None:
    with (
        socket.create_server(("127.0.0.1", free_ports[taken])),
        pytest.raises(DataError, match="port in use") as caught,
    ):
        check_ports(serve_of(recipe, port=free_ports["http"], grpc_port=free_ports["grpc"]))
    assert (caught.value.field, caught.value.value) == (field, free_ports[taken])


@pytest.mark.parametrize("other", ["grpc", "RAY_SERVE_HAPROXY_STATS_PORT"])
def test_a_port_that_is_named_twice_is_refused(
    recipe: Recipe, free_ports: dict[str, int], monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    port, grpc_port = free_ports["http"], free_ports["grpc"]
    if other == "grpc":
        grpc_port = port
    else:
        monkeypatch.setenv(other, str(port))
    with pytest.raises(DataError, match="are the same port") as error:
        check_ports(serve_of(recipe, port=port, grpc_port=grpc_port))
    assert error.value.value == port


def test_a_host_of_another_machine_is_named(recipe: Recipe) -> None:
    with pytest.raises(DataError) as caught:
        check_ports(serve_of(recipe, host="192.0.2.1"))
    assert caught.value.field == "serve.host"


def test_haproxy_gets_a_private_folder_with_room_for_its_socket(tmp_path: Path) -> None:
    environment = ProcessEnvironment.make(Serve(), tmp_path)
    try:
        assert stat.S_IMODE(environment.scratch.folder.stat().st_mode) == 0o700
        socket_path = Path(os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"])
        assert socket_path.parent == environment.scratch.folder
        # Serve puts the node's id (56 digits) between, HAProxy appends `.<pid>.tmp` while it binds.
        longest = socket_path.parent / ("f" * 56) / f"{socket_path.name}.4194304.tmp"
        assert len(str(longest)) <= 107
    finally:
        environment.clear()
    assert not environment.scratch.folder.exists()
    assert MARK not in os.environ
    assert "RAY_SERVE_HAPROXY_SOCKET_PATH" not in os.environ


def ports_of(environment: Mapping[str, str]) -> set[int]:
    """The ports that Serve is told to take for proxy and replicas."""
    begin = "RAY_SERVE_DIRECT_INGRESS"
    found = {int(environment[f"RAY_SERVE_FALLBACK_PROXY_{name}_PORT"]) for name in ("HTTP", "GRPC")}
    for name in ("HTTP", "GRPC"):
        first, end = (int(environment[f"{begin}_{bound}_{name}_PORT"]) for bound in ("MIN", "MAX"))
        assert end - first > 200
        assert not found & set(range(first, end))
        found |= set(range(first, end))
    assert min(found) >= FIRST and max(found) < END
    return found


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


def test_services_that_start_at_once_have_ports_of_their_own(tmp_path: Path) -> None:
    """Also where one dies without a word: the next takes its ports."""
    code = (
        "import json, os, sys; from pathlib import Path; from recsys.config import Serve\n"
        "from serve.ray.environment import ProcessEnvironment\n"
        "kept = ProcessEnvironment.make(Serve(), Path())\n"
        "print(json.dumps(dict(os.environ)), flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    started = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(4)]
    told = [json.loads(process.stdout.readline()) for process in started]
    try:
        ports = [ports_of(environment) for environment in told]
        assert len(set.union(*ports)) == sum(map(len, ports)), "none twice"
        for process in started:
            process.kill()
            process.wait()
        environment = ProcessEnvironment.make(Serve(), tmp_path)
        assert min(map(min, ports)) == min(ports_of(os.environ))
        environment.clear()
    finally:
        for process, environment in zip(started, told, strict=True):
            process.kill()
            process.communicate()
            shutil.rmtree(Path("/tmp", environment[MARK]), ignore_errors=True)


def test_ports_that_the_environment_names_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT", "30500")
    environment = ProcessEnvironment.make(Serve(), tmp_path)
    assert os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"] == "30500"
    assert "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT" not in os.environ, "Ray's own, as before"
    assert int(os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT"]) < END
    environment.clear()
    assert os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"] == "30500"
    assert "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT" not in os.environ


def test_where_all_ports_are_taken_that_is_said() -> None:
    blocks = []
    with pytest.raises(DataError, match="no block of ports is free"):
        for _ in range((END - FIRST) // BLOCK + 1):
            blocks.append(Block.reserve())
    for block in blocks:
        block.release()


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


def test_the_configuration_differs_in_the_bundle_alone(
    tmp_path: Path, language_model: Path
) -> None:
    from ray.serve.schema import ServeDeploySchema

    from serve.ray.app import config_of

    one = config_of(make_recipe(tmp_path, language_model), Path("/one"), "a-1")
    ServeDeploySchema.model_validate(one)
    later = make_recipe(
        tmp_path, language_model, train={"epochs": 9}, ray={"address": "auto"}, seed=8
    )
    two = config_of(later, Path("/two"), "a-2")
    wanted = [
        config["applications"][0]["deployments"][0].pop("user_config") for config in (one, two)
    ]
    assert one == two
    assert [each["bundle"] for each in wanted] == ["/one", "/two"]
    assert [each["version"] for each in wanted] == ["a-1", "a-2"]
    # Sent again after a failure, it must be another configuration, or Serve does nothing.
    assert wanted[0]["attempt"] != wanted[1]["attempt"]


def test_grpc_is_off_until_it_has_a_port(tmp_path: Path, language_model: Path) -> None:
    from ray.serve._private.utils import is_grpc_enabled
    from ray.serve.config import gRPCOptions
    from ray.serve.schema import ServeDeploySchema

    from serve.protos.server import add_to_server
    from serve.ray.app import config_of, grpc_options

    for port in (None, 9001):
        recipe = make_recipe(tmp_path, language_model, serve={"grpc_port": port})
        ServeDeploySchema.model_validate(config_of(recipe, tmp_path, "a-1"))
        options = gRPCOptions(**grpc_options(recipe))
        assert is_grpc_enabled(options) is (port is not None)
    assert (options.port, options.grpc_servicer_func_callable) == (9001, [add_to_server])
    with pytest.raises(RecipeError, match="serve.port and serve.grpc_port are the same: 8000"):
        make_recipe(tmp_path, language_model, serve={"grpc_port": 8000})


def test_the_application_takes_its_settings_from_the_recipe(
    tmp_path: Path, language_model: Path
) -> None:
    from serve.ray.app import config_of, from_config

    scale = {"min_replicas": 2, "max_replicas": 3, "target_ongoing_requests": 5}
    limits = {"autoscaling": scale, "max_ongoing_requests": 7, "max_queued_requests": 9}
    recipe = make_recipe(tmp_path, language_model, serve=limits)
    (application,) = config_of(recipe, tmp_path, "a-1")["applications"]
    ranking = from_config(application["args"])._bound_deployment
    assert ranking.name == "Ranking"
    assert (ranking.max_ongoing_requests, ranking.max_queued_requests) == (7, 9)
    (deployment,) = application["deployments"]
    assert deployment["name"] == ranking.name
    assert deployment["autoscaling_config"].items() >= scale.items()
    # What restarts the replicas is the same whatever their number.
    unscaled = make_recipe(
        tmp_path, language_model, serve={"max_ongoing_requests": 7, "max_queued_requests": 9}
    )
    assert config_of(unscaled, tmp_path, "a-1")["applications"][0]["args"] == application["args"]


def test_other_code_is_another_configuration(tmp_path: Path) -> None:
    from serve.ray.app import code_version

    package = ModuleType("package")
    package.__path__ = [str(tmp_path)]
    versions = [code_version([package])]
    for path, text in (("a.py", "1"), ("a.py", "2"), ("below/b.py", "2")):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
        versions.append(code_version([package]))
    (tmp_path / "a.txt").write_text("no code")
    assert code_version([package]) == versions[-1]
    assert len(set(versions)) == 4
    assert code_version() == code_version() not in versions


def test_arms_travel_with_the_bundle_and_restart_nobody(
    tmp_path: Path, language_model: Path, bundle: Path
) -> None:
    from ray.serve.schema import ServeDeploySchema

    from serve.ray.app import config_of

    arms = [{"name": "a"}, {"name": "b", "bundle": str(bundle), "weight": 2}]
    several = config_of(
        make_recipe(tmp_path, language_model, serve={"arms": arms}), tmp_path / "one", "v"
    )
    ServeDeploySchema.model_validate(several)
    one = config_of(make_recipe(tmp_path, language_model), tmp_path / "one", "v")
    told = several["applications"][0]["deployments"][0].pop("user_config")["arms"]
    assert one["applications"][0]["deployments"][0].pop("user_config")["arms"] == []
    assert several == one
    assert [(arm["name"], arm["bundle"], arm["version"], arm["weight"]) for arm in told] == [
        ("a", None, None, 1.0),
        ("b", str(bundle), Bundle.open(bundle).version, 2.0),
    ]


@pytest.fixture
def config(
    tmp_path: Path,
    language_model: Path,
    free_ports: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    monkeypatch.setenv("RAYCOMMEND_PSEUDONYM_KEY", KEY)
    registry = {"registry": str(tmp_path / "registry")}
    ports = {"port": free_ports["http"]}
    recipe = make_recipe(tmp_path / "run", language_model, promote=registry, serve=ports)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.resolved()))
    return path


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
