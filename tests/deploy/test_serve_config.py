"""The Serve configuration in the RayService: Ray's schema, and what `recsys serve` would send."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import FOLDER, of_kind, pods

from recsys.config import load_recipe
from serve.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


@pytest.fixture
def config() -> dict[str, Any]:
    (service,) = of_kind("RayService")
    return dict(yaml.safe_load(service.spec["serveConfigV2"]))


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    from ray.serve.schema import ServeDeploySchema

    ServeDeploySchema.model_validate(config)
    config["applications"][0]["import_path"] = "from_config"
    with pytest.raises(ValueError, match="import_path"):
        ServeDeploySchema.model_validate(config)


def test_it_is_what_recsys_serve_sends(config: dict[str, Any]) -> None:
    from serve.ray.app import config_of

    user_config = config["applications"][0]["deployments"][0]["user_config"]
    recipe = load_recipe(FOLDER / "recipe.yaml", [])
    sent = config_of(recipe, Path(user_config["bundle"]), user_config["version"])
    # These two tell one start from another; here the image and the version do.
    del sent["applications"][0]["args"]["code"]
    del sent["applications"][0]["deployments"][0]["user_config"]["attempt"]
    assert sent.pop("grpc_options") == {}
    given = config["applications"][0]["args"]["settings"]
    config["applications"][0]["args"]["settings"] = Settings.model_validate(given).model_dump(
        mode="json"
    )
    assert config == sent


def test_the_application_can_be_built(config: dict[str, Any]) -> None:
    from ray.serve import Application

    from serve.ray.app import NAME, from_config

    assert isinstance(from_config(config["applications"][0]["args"]), Application)
    assert config["applications"][0]["name"] == NAME


def test_the_bundle_lies_in_the_registry_of_the_recipe(config: dict[str, Any]) -> None:
    user_config = config["applications"][0]["deployments"][0]["user_config"]
    recipe = load_recipe(FOLDER / "recipe.yaml", [])
    assert Path(user_config["bundle"]) == recipe.registry / "bundles" / user_config["version"]


def test_its_ports_are_open_and_its_files_mounted(config: dict[str, Any]) -> None:
    for pod in (pod for pod in pods() if pod.of.kind == "RayService"):
        named = {port["name"]: port["containerPort"] for port in pod.container["ports"]}
        assert named["serve"] == config["http_options"]["port"]
        keys = Path(config["applications"][0]["args"]["settings"]["serve"]["access"]["keys"])
        assert pod.mounted()[str(keys.parent)]["secret"]["secretName"] == "raycommend-api-keys"


def test_serve_starts_in_the_environment_of_recsys_serve() -> None:
    from serve.ray.environment import _DEFAULTS

    # Of token authentication KubeRay sets the variables itself (`authOptions`).
    wanted = {name: value for name, value in _DEFAULTS.items() if name != "RAY_AUTH_MODE"}
    for pod in (pod for pod in pods() if pod.of.kind == "RayService"):
        assert {name: each for name, each in pod.env().items() if isinstance(each, str)} == wanted


def test_the_replicas_fit_into_the_pods() -> None:
    recipe = load_recipe(FOLDER / "recipe.yaml", [])
    (service,) = of_kind("RayService")
    (group,) = service.spec["rayClusterConfig"]["workerGroupSpecs"]
    cpus = int(group["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"])
    serve = recipe.serve
    most = serve.autoscaling.max_replicas + serve.text_encoder.max_replicas
    # Twice: a rolling update runs old and new ones side by side.
    assert 2 * most * serve.cpus_per_replica <= cpus * group["maxReplicas"]
    assert group["minReplicas"] >= 2 <= serve.autoscaling.min_replicas
