"""The Serve application and its configuration."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ray import serve
from ray.serve.config import BackpressureConfig

import recsys
import serve as serve_package
from recsys.config import Recipe
from recsys.storage.location import Place
from serve.models.arms import resolve_arms
from serve.protos.server import IMPORT_PATH
from serve.ray.metrics import RayMetrics
from serve.ray.ranking import Ranking
from serve.ray.text_encoder import TextEncoder
from serve.settings import Settings

NAME = "raycommend"

#: A rolling update starts new replicas before it ends old ones; by default it ends first, a gap of
#: seconds where there is one replica.
SURGE_PERCENT = 100

#: How often a replica reports its load, and over how long that is averaged, seconds. Ray's 10 and
#: 30 would make `upscale_delay_s` a small part of the delay, and a fall would wait 30 s more.
LOAD = {"metrics_interval_s": 2.0, "look_back_period_s": 6.0}

#: One JSON object a line; requests are logged by `ObservabilityMiddleware`, not by Serve as well.
LOGGING = {"encoding": "JSON", "enable_access_log": False}


def config_of(recipe: Recipe, bundle: Place, version: str) -> dict[str, Any]:
    """The Serve configuration of the service, for `serve deploy` or the REST API.

    The bundle and `serve.arms` stand in `user_config` and nowhere else. A configuration that
    differs in them alone makes the replicas load it while they go on serving. One that differs in
    `serve.autoscaling` starts or ends replicas. Other settings, or other code, restart them all,
    one by one.

    Raises:
        BundleError: an arm's place holds no bundle; what it holds is verified by the replicas.
    """
    # `attempt` makes a configuration differ from an equal one that was sent before and failed.
    wanted = {
        "bundle": str(bundle),
        "version": version,
        "arms": [arm.model_dump(mode="json") for arm in resolve_arms(recipe)],
        "attempt": uuid.uuid4().hex,
    }
    return {
        "proxy_location": "EveryNode",
        "http_options": http_options(recipe),
        "grpc_options": grpc_options(recipe),
        "applications": [
            {
                "name": NAME,
                "route_prefix": "/",
                "import_path": "serve.ray.app:from_config",
                "logging_config": LOGGING,
                "args": {
                    "settings": Settings.of(recipe).model_dump(mode="json"),
                    "code": code_version(),
                },
                "deployments": [
                    {
                        "name": Ranking.__name__,
                        "user_config": wanted,
                        "autoscaling_config": recipe.serve.autoscaling.model_dump() | LOAD,
                    }
                ],
            }
        ],
    }


def code_version(packages: Sequence[ModuleType] = (recsys, serve_package)) -> str:
    """A hash of these packages' source code.

    It stands in the configuration: otherwise Serve would keep replicas of old code.
    """
    digest = hashlib.sha256()
    for package in packages:
        (folder,) = package.__path__
        for path in sorted(Path(folder).rglob("*.py")):
            digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def http_options(recipe: Recipe) -> dict[str, Any]:
    """Host and port of the HTTP proxy."""
    return {"host": recipe.serve.host, "port": recipe.serve.port}


def grpc_options(recipe: Recipe) -> dict[str, Any]:
    """Port of the gRPC proxy, on the same host; without functions Serve starts none."""
    if recipe.serve.grpc_port is None:
        return {}
    return {"port": recipe.serve.grpc_port, "grpc_servicer_functions": [IMPORT_PATH]}


def from_config(args: dict[str, Any]) -> serve.Application:
    """Build the application: `Ranking` with a handle to `TextEncoder`.

    The configuration names this function as `import_path`.

    Args:
        args: `settings`, see `Settings`, as plain data; and `code`, see `code_version`.
    """
    settings = Settings.model_validate(args["settings"])
    limits = settings.serve
    actor = {"num_cpus": limits.cpus_per_replica}
    encoder = serve.deployment(
        autoscaling_config=limits.text_encoder.model_dump() | LOAD,
        max_ongoing_requests=limits.max_ongoing_requests,
        max_queued_requests=limits.max_queued_requests,
        max_surge_percent=SURGE_PERCENT,
        ray_actor_options=actor,
    )(TextEncoder)
    ranking = serve.deployment(
        autoscaling_config=limits.autoscaling.model_dump() | LOAD,
        max_ongoing_requests=limits.max_ongoing_requests,
        max_queued_requests=limits.max_queued_requests,
        max_surge_percent=SURGE_PERCENT,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=1),
        ray_actor_options=actor,
    )(Ranking)
    texts = encoder.bind(RayMetrics, settings.storage.cache)
    return ranking.bind(settings.model_dump(mode="json"), texts)
