"""Start the service, keep it, end it; or hand a new bundle to one that runs."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from recsys.bundle import Bundle
from recsys.config import Recipe
from recsys.errors import DataError
from recsys.privacy import load_key
from serve.access import KeyFile, own_key
from serve.environment import Surroundings, set_defaults
from serve.ports import check_ports
from serve.router import ONLY, placed, told

MAX_START_S = 300.0
ANSWERS_A_REPLICA = 4

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Past a proxy that the environment may name: the service is on this machine or its cluster.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def start(recipe: Recipe, bundle: Path, *, block: bool = True) -> Callable[[], None]:
    """Serve a bundle on a local Ray, or on the cluster of `ray.address`.

    Where the service runs already on that cluster, it is handed the bundle and goes on serving.

    Args:
        recipe: the service's settings.
        bundle: the bundle's folder, which every node of the cluster can read.
        block: stay until SIGINT, SIGTERM or SIGHUP, then end what was started here.

    Returns:
        What ends the service; with `block` it has been called.

    Raises:
        RaycommendError: the bundle is broken, the key is missing, a port is taken, another
            application is on the cluster, or the service does not come up.
    """
    if block:
        # Even where whoever started us ignores them, and before we wait for them: what was started
        # until then must be ended.
        for number in _SIGNALS:
            signal.signal(number, signal.default_int_handler)
    version = Bundle.open(bundle).version
    placed(recipe.serve.arms, verify=True)
    key = load_key(recipe.privacy, recipe.root, create=False)
    if recipe.serve.access.keys is not None:
        KeyFile.read(Path(recipe.serve.access.keys).expanduser())
    address = recipe.ray.address or os.environ.get("RAY_ADDRESS") or "local"
    with ExitStack() as stack:
        if address == "local":
            set_defaults()
            check_ports(recipe.serve)
            room = recipe.serve.max_ongoing_requests + recipe.serve.max_queued_requests
            stack.callback(Surroundings.make(room).clear)
        print(f"serving {version} from {bundle}: starting", flush=True)
        cluster = stack.enter_context(_connected(recipe, address))
        is_ours = stack.enter_context(_serving(recipe))
        url, grpc_address = _deploy(recipe, bundle, version, cluster.dashboard, own_key(key))
        print(f"service    {url}\nAPI docs   {url}/docs")
        if grpc_address:
            print(f"gRPC       {grpc_address}")
        print(
            f"dashboard  {cluster.dashboard}\n"
            f"update     the same command with --set ray.address={cluster.address}",
            flush=True,
        )
        stop = stack.pop_all().close
    if not is_ours:
        stop()
    elif block:
        try:
            _wait_for_signal()
            print("stopping", flush=True)
        finally:
            # Ray tells, in red, that Serve's controller is gone, and that it will try again.
            with redirect_stdout(io.StringIO()):
                stop()
        print("stopped", flush=True)
    return stop


@dataclass(frozen=True)
class Cluster:
    """Where a Ray cluster is reached."""

    address: str
    dashboard: str


@contextmanager
def _connected(recipe: Recipe, address: str) -> Iterator[Cluster]:
    """Be connected to Ray; a cluster of our own is started, and ends with the connection."""
    import ray

    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    if address == "local":
        # The service's shares of a CPU are small: let a rolling update, which runs old and new
        # replicas side by side, never wait for them.
        replicas = recipe.serve.autoscaling.max_replicas + recipe.serve.text_encoder.max_replicas
        needed = math.ceil(2 * replicas * recipe.serve.cpus_per_replica)
        options["num_cpus"] = max(recipe.ray.num_cpus or os.cpu_count() or 1, needed)
        options["include_dashboard"] = True
    context = ray.init(address=address, **options)
    _hide_token()
    try:
        yield Cluster(context.address_info["gcs_address"], f"http://{context.dashboard_url}")
    finally:
        ray.shutdown()


def _hide_token() -> None:
    """Ray writes the cluster's token so that every user of the machine can read it."""
    token = Path.home() / ".ray" / "auth_token"
    with suppress(OSError):
        token.chmod(0o600)


@contextmanager
def _serving(recipe: Recipe) -> Iterator[bool]:
    """Have Serve run on the cluster; gives whether it was started here, and so ends here."""
    from ray import serve

    from serve.app import grpc_options, http_options

    if _running():
        yield False
        return
    serve.start(
        proxy_location="EveryNode",
        http_options=http_options(recipe),
        grpc_options=grpc_options(recipe),
    )
    try:
        yield True
    finally:
        serve.shutdown()


def _running() -> bool:
    import ray
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


def _deploy(
    recipe: Recipe, bundle: Path, version: str, dashboard: str, key: str
) -> tuple[str, str | None]:
    """Send the configuration as `serve deploy` does, wait until it is served.

    Gives the URL, and the address for gRPC if there is one.

    Not by `serve.run`: that restarts every replica when a new bundle comes, a configuration does
    not, and the first configuration after a `serve.run` restarts them too.
    """
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    from serve.app import NAME, config_of

    client = ServeSubmissionClient(dashboard)
    applications = client.get_serve_details().get("applications", {})
    before = applications.get(NAME, {}).get("deployed_app_config")
    if others := applications.keys() - {NAME}:
        raise DataError(
            "other applications run on this cluster's Serve, and a configuration replaces them all",
            where=dashboard, field="ray.address", value=", ".join(sorted(others)),
            mend="take a cluster of its own for the service",
        )  # fmt: skip
    config = config_of(recipe, bundle, version)
    wanted = [
        told(arm) | {"version": arm.version or version}
        for arm in placed(recipe.serve.arms) or [ONLY]
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
            if before:  # a replica that starts later must not be told of the bundle that is broken
                client.deploy_applications(config | {"applications": [before]})
            raise _does_not_come_up(bundle, model["failed_update"])
        # Any replica may answer: as good as all must have been asked.
        agreeing = agreeing + 1 if model.get("arms") == wanted else 0
        replicas = application.get("deployments", {}).get("Ranking", {}).get("replicas", [])
        if agreeing > ANSWERS_A_REPLICA * len(replicas):
            if model["log"] != "taken over":
                print(f"the users of its log: {model['log']}", flush=True)
            return url, _grpc_address(details)
        if status in ("DEPLOY_FAILED", "UNHEALTHY") or time.monotonic() > deadline:
            lines = (application.get("message") or f"status {status}").strip().splitlines()
            raise _does_not_come_up(bundle, lines[-1])
        if not agreeing:
            time.sleep(0.2)


def _grpc_address(details: dict[str, Any]) -> str | None:
    """Where Serve listens for gRPC, if it does: it started so, whatever the recipe says now."""
    options = details.get("grpc_options") or {}
    if not options.get("grpc_servicer_functions"):
        return None
    return f"{_reachable(details['http_options']['host'])}:{options['port']}"


def _does_not_come_up(bundle: Path, why: str) -> DataError:
    return DataError(
        f"this bundle is not served: {why}", where=bundle,
        mend="see the logs of Ray's session: /tmp/ray/session_latest/logs/serve",
    )  # fmt: skip


def _reachable(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _model(url: str, key: str) -> dict[str, Any]:
    """What the service says of its model; empty if it does not answer."""
    request = urllib.request.Request(f"{url}/model", headers={"Authorization": f"Bearer {key}"})
    try:
        with _DIRECT.open(request, timeout=2) as answer:
            return dict(json.load(answer))
    except (OSError, HTTPException, ValueError):  # refused, timed out, cut off, or not ours
        return {}


def _wait_for_signal() -> None:
    came = threading.Event()
    # The handlers stay until all is ended: an impatient second Ctrl-C must not leave processes.
    for number in _SIGNALS:
        signal.signal(number, lambda *_: came.set())
    came.wait()
