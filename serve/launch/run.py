"""Start a service and stop it; or hand a new bundle to one that runs."""

from __future__ import annotations

import io
import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.artifacts.bundle import Bundle
from recsys.config import Recipe
from recsys.data.pseudonyms import load_key
from recsys.errors import DataError, RaycommendError
from recsys.storage.location import Place
from recsys.storage.ray_token import make_token
from recsys.storage.scratch import outlived, sweep
from serve.access.key_file import own_key
from serve.launch.checks import check_start, warnings
from serve.launch.deploying import deploy
from serve.launch.own_files import OwnFiles
from serve.launch.stopping import drain
from serve.ray.environment import ProcessEnvironment, set_defaults
from serve.ray.ports import check_ports

#: Attempts to start Ray: on a busy machine its own timeouts are too short.
ATTEMPTS = 3

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start(
    recipe: Recipe,
    bundle: Place,
    *,
    block: bool = True,
    command: Sequence[str] = (),
    update: bool = False,
) -> Callable[[], None]:
    """Serve a bundle on a local Ray, or on the cluster of `ray.address`.

    Where the service runs already on that cluster, it is handed the bundle and goes on serving.

    Args:
        recipe: the service's settings.
        bundle: the bundle's folder, which every node of the cluster can read, or its URI.
        block: stay until SIGINT, SIGTERM or SIGHUP, then end what was started here.
        command: that started the service, for what it prints.
        update: hand it to a service that runs, and start none.

    Returns:
        What ends the service; with `block` it has been called.

    Raises:
        RaycommendError: the bundle is broken, the key is missing, a port is taken, another
            application is on the cluster, or the service does not come up.
    """
    if block:
        # Even where the parent process ignores them, and before we wait for them: what was started
        # until then must be ended.
        for number in _SIGNALS:
            signal.signal(number, signal.default_int_handler)
    address = recipe.ray.address or os.environ.get("RAY_ADDRESS") or "local"
    set_defaults()
    # What a killed service left may still answer at our port: it ends when all is in order here.
    takes_place = address == "local" and outlived(recipe.root)
    check_start(recipe, address, ports=not takes_place)
    for warning in warnings(recipe):
        print(f"warning: {warning}", flush=True)
    version = Bundle.open(recipe.storage.cache.local(bundle).folder).version
    if address == "local":
        for left in sweep("service", recipe.root):
            print(f"removed what a killed {left.kind} had left in {left.folder}", flush=True)
    if takes_place:
        check_ports(recipe.serve)
    print(f"serving {version} from {bundle}: starting", flush=True)
    with ExitStack() as stack:
        cluster = start_cluster(stack, recipe, address)
        if update and cluster.is_ours:
            raise DataError(
                "no service runs there that could take the bundle", field="ray.address",
                value=address, fix="start it with `recsys serve`, which takes the champion",
            )  # fmt: skip
        key = own_key(load_key(recipe.privacy, recipe.root, create=False))
        url, grpc_address = deploy(recipe, bundle, version, cluster.dashboard, key, cluster.logs)
        print(f"service    {url}\nAPI docs   {url}/docs")
        if grpc_address:
            print(f"gRPC       {grpc_address}")
        print(f"dashboard  {cluster.dashboard}\nlogs       {cluster.logs}")
        if cluster.targets:
            print(f"metrics    {cluster.targets}")
        print(f"update     {update_command(command, cluster.address)}", flush=True)
        stop = stack.pop_all().close
    if not cluster.is_ours:
        stop()
    elif block:
        try:
            _wait_for_signal()
            print("stopping", flush=True)
        finally:
            # Ray would print, in red, that Serve's controller is gone and that it tries again.
            with redirect_stdout(io.StringIO()):
                stop()
        print("stopped", flush=True)
    return stop


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster with Serve on it.

    Attributes:
        address: of its GCS.
        dashboard: URL.
        logs: folder of the replicas' logs, on each of its nodes.
        targets: file for Prometheus; None: the cluster is somebody else's.
        is_ours: Serve was started here, and so ends here.
    """

    address: str
    dashboard: str
    logs: Path
    targets: Path | None
    is_ours: bool


#: One attempt at a cluster; what was started ends with the stack.
StartOrJoin = Callable[[ExitStack, Recipe], Cluster]


def start_cluster(
    stack: ExitStack, recipe: Recipe, address: str, start_or_join: StartOrJoin | None = None
) -> Cluster:
    """Start or join Ray and Serve; what was started ends with the stack.

    Args:
        stack: what ends the cluster, or this process's part in it.
        recipe: the service's settings.
        address: of a running cluster, or `local`.
        start_or_join: one attempt; by default `local` starts a Ray and an address joins one.

    Raises:
        DataError: they do not come up.
    """
    start_or_join = start_or_join or (_local if address == "local" else _joined)
    attempts = ATTEMPTS if address == "local" else 1
    for attempt in range(1, attempts + 1):
        try:
            with ExitStack() as tried:
                cluster = start_or_join(tried, recipe)
                stack.push(tried.pop_all())
                return cluster
        except RaycommendError:
            raise
        except Exception as error:  # of many classes; Ray puts most of them into a stack trace
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            load = f"{os.getloadavg()[0]:.0f} on {os.cpu_count()} CPUs"
            if attempt == attempts:
                raise _not_up(recipe, address, reason, load) from None
            print(f"Ray did not start ({reason}), the load is {load}: trying again", flush=True)
    raise AssertionError


def _not_up(recipe: Recipe, address: str, reason: str, load: str) -> DataError:
    if address == "local":
        return DataError(
            f"Ray does not start on this machine: {reason}", where=OwnFiles.of(recipe).logs,
            fix=f"the load is {load}: wait until there is less, or read the logs",
        )  # fmt: skip
    return DataError(
        f"this cluster cannot be joined: {reason}", field="ray.address", value=address,
        fix="see that it runs, that RAY_AUTH_MODE is token here as there, and that this user has "
        "its token in ~/.ray/auth_token",
    )  # fmt: skip


def _local(stack: ExitStack, recipe: Recipe) -> Cluster:
    """Start Ray and Serve on this machine."""
    make_token()
    files, environment = (
        OwnFiles.of(recipe),
        ProcessEnvironment.make(recipe.serve, recipe.root),
    )
    stack.callback(environment.clear)
    stack.callback(files.keep, environment.scratch)
    # The service's shares of a CPU are small: let a rolling update, which runs old and new replicas
    # side by side, never wait for them.
    replicas = recipe.serve.autoscaling.max_replicas + recipe.serve.text_encoder.max_replicas
    needed = math.ceil(2 * replicas * recipe.serve.cpus_per_replica)
    num_cpus = max(recipe.ray.num_cpus or os.cpu_count() or 1, needed)
    context = stack.enter_context(_connected("local", num_cpus=num_cpus, include_dashboard=True))
    files.link(Path(context.address_info["session_dir"]), context.address_info["gcs_address"])
    _start_serve(recipe)
    stack.callback(drain, environment.scratch, recipe.serve.grace_s)
    return Cluster(
        context.address_info["gcs_address"],
        f"http://{context.dashboard_url}",
        files.logs / "serve",
        files.targets,
        is_ours=True,
    )


def _joined(stack: ExitStack, recipe: Recipe) -> Cluster:
    """Join a running cluster; start Serve where it does not run yet."""
    from ray import serve

    address = recipe.ray.address or os.environ["RAY_ADDRESS"]
    context = stack.enter_context(_connected(address))
    is_ours = not _runs_serve()
    if is_ours:
        _start_serve(recipe)
        stack.callback(serve.shutdown)
    return Cluster(
        context.address_info["gcs_address"],
        f"http://{context.dashboard_url}",
        Path(context.address_info["session_dir"], "logs", "serve"),
        None,
        is_ours,
    )


@contextmanager
def _connected(address: str, **options: Any) -> Iterator[Any]:
    """A connection to Ray; disconnects at the end. Gives the context of `ray.init`."""
    import ray

    # Nothing is logged: errors stand in the exception too.
    handlers = [(number, signal.getsignal(number)) for number in _SIGNALS]
    context = ray.init(
        address=address, logging_level=logging.CRITICAL, log_to_driver=False, **options
    )
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers:  # Ray's own for SIGTERM ends the process on the spot
            signal.signal(number, handler)
    try:
        yield context
    finally:
        ray.shutdown()


def _start_serve(recipe: Recipe) -> None:
    from ray import serve

    from serve.ray.app import grpc_options, http_options

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(
        proxy_location="EveryNode",
        http_options=http_options(recipe),
        grpc_options=grpc_options(recipe),
    )


def _runs_serve() -> bool:
    import ray
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


def update_command(command: Sequence[str], address: str) -> str:
    """The command that hands a new champion to the service that runs at an address."""
    import shlex

    words = [*command, "--set", f"ray.address={address}"]
    return f"RAY_AUTH_MODE=token {shlex.join(words)}"


def _wait_for_signal() -> None:
    came = threading.Event()
    # The handlers stay until all is ended: an impatient second Ctrl-C must not leave processes.
    for number in _SIGNALS:
        signal.signal(number, lambda *_: came.set())
    came.wait()
