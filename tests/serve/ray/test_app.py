"""The configuration that is sent to Ray Serve."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from bundles import make_recipe

from recsys.artifacts.bundle import Bundle
from recsys.errors import RecipeError

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


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
