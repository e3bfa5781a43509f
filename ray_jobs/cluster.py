"""Joining a Ray cluster, or starting one of our own that ends with the job."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from recsys.config import RayCluster
from recsys.errors import cause_of

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


@contextmanager
def connected(cluster: RayCluster) -> Iterator[None]:
    """Be connected to Ray inside the block. A cluster started here is shut down at its end."""
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
    options: dict[str, object] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with ExitStack() as stack:
        if address == "local":
            # Ray's C++ parts report as errors what they recover from.
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
            options["num_cpus"] = num_cpus = (cluster.num_cpus or os.cpu_count() or 1) + SPARE_CPUS
            # Ray warns of three times as many processes. A trial has a dozen, and most only wait.
            os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(4 * num_cpus))
            temporary = stack.enter_context(_private_folder())
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
    """A folder for all that a local cluster writes; kept for its logs if the block fails.

    It lies directly in /tmp, for the paths of Ray's sockets may hold only 107 characters.
    """
    if "RAY_TMPDIR" in os.environ:
        yield Path(os.environ["RAY_TMPDIR"])
        return
    folder = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
    os.environ["RAY_TMPDIR"] = str(folder)
    try:
        yield folder
    except BaseException as error:
        if cause_of(error) or isinstance(error, KeyboardInterrupt):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"Ray's logs of this run: {folder}/ray/session_latest/logs", file=sys.stderr)
        raise
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        del os.environ["RAY_TMPDIR"]


def _quiet_data() -> None:
    """Keep Ray Data to its progress bar, and let our errors come out of its tasks as they are."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    ray.data.DataContext.get_current().raise_original_map_exception = True
