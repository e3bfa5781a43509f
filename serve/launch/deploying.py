"""Send a configuration to Ray Serve and wait until all replicas serve what it says."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from recsys.config import Recipe
from recsys.errors import DataError
from recsys.storage.location import Place
from serve.models.arms import DEFAULT_ARM, describe_arm, resolve_arms

MAX_START_S = 300.0
ANSWERS_A_REPLICA = 4

#: Past a proxy that the environment may name: the service is on this machine or its cluster.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

#: The line of a stack trace that names an error of ours.
_OURS = re.compile(r"^recsys\.errors\.\w+: (.+)$", re.MULTILINE)


def deploy(
    recipe: Recipe, bundle: Place, version: str, dashboard: str, key: str, logs: Path
) -> tuple[str, str | None]:
    """Send the configuration as `serve deploy` does, and wait until it is served.

    `serve.run` would restart every replica when a new bundle comes; a configuration does not. The
    first configuration after a `serve.run` would restart them too.

    Args:
        recipe: the service's.
        bundle: to be served.
        version: of it.
        dashboard: URL of the cluster's.
        key: opens `GET /model`.
        logs: where to look if it does not come up.

    Returns:
        The URL, and the address for gRPC if there is one.

    Raises:
        DataError: it does not come up, or other applications run there.
    """
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    from serve.ray.app import NAME, config_of

    client = ServeSubmissionClient(dashboard)
    applications = client.get_serve_details().get("applications", {})
    before = applications.get(NAME, {}).get("deployed_app_config")
    if others := applications.keys() - {NAME}:
        raise DataError(
            "other applications run on this cluster's Serve, and a configuration replaces them all",
            where=dashboard, field="ray.address", value=", ".join(sorted(others)),
            fix="take a cluster of its own for the service",
        )  # fmt: skip
    config = config_of(recipe, bundle, version)
    wanted = [
        describe_arm(arm) | {"version": arm.version or version}
        for arm in resolve_arms(recipe) or [DEFAULT_ARM]
    ]
    client.deploy_applications(config)
    deadline, agreeing = time.monotonic() + MAX_START_S, 0
    while True:
        details = client.get_serve_details()
        application = details["applications"].get(NAME, {})
        status, http = application.get("status"), details["http_options"]
        url = f"http://{_reachable(http['host'])}:{http['port']}"
        model = _model(url, key) if status == "RUNNING" else {}
        if model.get("failed_update"):
            if before:  # a replica that starts later must not get the broken bundle
                client.deploy_applications(config | {"applications": [before]})
            raise _does_not_come_up(bundle, model["failed_update"], logs)
        # Any replica may answer: as good as all must have been asked.
        agreeing = agreeing + 1 if model.get("arms") == wanted else 0
        replicas = application.get("deployments", {}).get("Ranking", {}).get("replicas", [])
        if agreeing > ANSWERS_A_REPLICA * len(replicas):
            if model["log"] != "taken over":
                print(f"the users of its log: {model['log']}", flush=True)
            return url, _grpc_address(details)
        if status in ("DEPLOY_FAILED", "UNHEALTHY") or time.monotonic() > deadline:
            raise _does_not_come_up(bundle, _cause(application), logs)
        if not agreeing:
            time.sleep(0.2)


def _grpc_address(details: dict[str, Any]) -> str | None:
    """Address that Serve listens on for gRPC, as it was started; None: it does not."""
    options = details.get("grpc_options") or {}
    if not options.get("grpc_servicer_functions"):
        return None
    return f"{_reachable(details['http_options']['host'])}:{options['port']}"


def _does_not_come_up(bundle: Place, why: str, logs: Path) -> DataError:
    return DataError(f"this bundle is not served: {why}", where=bundle, fix=f"see {logs}")


def _cause(application: dict[str, Any]) -> str:
    """Why an application failed: an error of ours in a replica's stack trace, or Serve's."""
    replicas = application.get("deployments", {}).values()
    messages = [application.get("message") or f"status {application.get('status')}"]
    messages += [deployment.get("message") or "" for deployment in replicas]
    for message in messages:
        if ours := _OURS.findall(message):
            return str(ours[-1])
    return messages[0].strip().splitlines()[-1]


def _reachable(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _model(url: str, key: str) -> dict[str, Any]:
    """The answer of `GET /model`; empty if there is none."""
    request = urllib.request.Request(f"{url}/model", headers={"Authorization": f"Bearer {key}"})
    try:
        with _DIRECT.open(request, timeout=2) as answer:
            return dict(json.load(answer))
    except (OSError, HTTPException, ValueError):  # refused, timed out, cut off, or not ours
        return {}
