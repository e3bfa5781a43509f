"""Joining a Ray cluster, or starting one of our own that ends with the job."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from recsys.config import RayCluster
from recsys.errors import cause_of
from recsys.storage.ray_token import make_token
from recsys.storage.scratch import Scratch, sweep

#: A CPU that trainers must leave free, or Ray Data cannot read for them (ray#23158).
READER_CPUS = 1
#: Logical CPUs of a local cluster beyond the machine's: the reader's, which takes little of a core,
#: and one for what only waits, such as a trial's driver.
SPARE_CPUS = READER_CPUS + 1


def is_local(cluster: RayCluster) -> bool:
    """Whether a job starts a cluster of its own, which does not grow."""
    return address_of(cluster) == "local"


def address_of(cluster: RayCluster) -> str:
    """What `ray.init` is told."""
    return cluster.address or os.environ.get("RAY_ADDRESS") or "local"


def start_cost(cluster: RayCluster) -> list[str]:
    """What the plan of a job says of a cluster that it starts; nothing if it joins one."""
    if not is_local(cluster):
        return []
    return ["start a local Ray, which takes 10 to 20 s whatever there is to do"]


@contextmanager
def connected(cluster: RayCluster, *, dashboard: bool = False) -> Iterator[None]:
    """Be connected to Ray inside the block. A cluster started here is shut down at its end.

    Args:
        cluster: of the recipe.
        dashboard: start one too. Ray Train needs it: its cleaner of placement groups fails once a
            second without, and the group's resources stay taken.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Relative paths in a recipe mean the driver's folder, in a trial too.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    # Tune's own tables: ours are shorter.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    if not os.isatty(2):
        os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import ray

    if ray.is_initialized():
        yield
        return
    address = address_of(cluster)
    # What the workers print, and what Ray warns of, stays in Ray's logs.
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with ExitStack() as stack:
        if address == "local":
            make_token()
            # Ray's C++ parts report as errors what they recover from.
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
            options["num_cpus"] = num_cpus = (cluster.num_cpus or os.cpu_count() or 1) + SPARE_CPUS
            # Ray Train looks at its few workers more often, and for no notice that this machine is
            # to be taken away: either saves seconds of every training.
            os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
            # A worker that hangs is asked in vain to leave its group: it is killed after so long.
            os.environ.setdefault("TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S", "5")
            # Ray warns of three times as many processes. A trial has a dozen, and most only wait.
            os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(4 * num_cpus))
            options["include_dashboard"] = dashboard
            temporary = stack.enter_context(_private_folder())
        with _without_banner():
            ray.init(address=address, **options)
        stack.callback(ray.shutdown)
        if address == "local":
            # Train's cleaner of stopped trials looks its cluster up here, and beside another Ray on
            # the machine (a running service, say) it would give up and keep the trials' CPUs taken.
            (temporary / "ray" / "ray_current_cluster").write_text(
                ray.get_runtime_context().gcs_address
            )
        _quiet_data()
        yield


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder for all that a local cluster writes; kept for its logs if the block fails."""
    if "RAY_TMPDIR" in os.environ:
        yield Path(os.environ["RAY_TMPDIR"])
        return
    sweep("job")
    scratch = Scratch.make("job")
    os.environ["RAY_TMPDIR"] = str(scratch.folder)
    is_kept = False
    try:
        yield scratch.folder
    except BaseException as error:
        is_kept = not (cause_of(error) or isinstance(error, KeyboardInterrupt))
        if is_kept:
            logs = scratch.folder / "ray" / "session_latest" / "logs"
            print(f"Ray's logs of this run, for a day: {logs}", file=sys.stderr)
        raise
    finally:
        del os.environ["RAY_TMPDIR"]
        scratch.clear(keep=is_kept)


@contextmanager
def _without_banner() -> Iterator[None]:
    """Keep away what Ray's C++ part writes of its log level; whatever else comes is shown after."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)
            held.seek(0)
            for line in held:
                if b"Set ray log level from environment" not in line:
                    os.write(2, line)


def _quiet_data() -> None:
    """Keep Ray Data to its progress bar, and let our errors come out of its tasks as they are."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    ray.data.DataContext.get_current().raise_original_map_exception = True
