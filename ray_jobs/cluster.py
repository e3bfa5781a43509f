"""Joining a Ray cluster, or starting one of our own that ends with the job."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from recsys.config import RayCluster

#: A CPU that trainers must leave free, or Ray Data cannot read for them (ray#23158).
READER_CPUS = 1
#: Logical CPUs of a local cluster beyond the machine's: the reader's, which takes little of a core, and
#: one for what only waits, such as a trial's driver.
SPARE_CPUS = READER_CPUS + 1


@contextmanager
def connected(cluster: RayCluster) -> Iterator[None]:
    """Be connected to Ray inside the block. A cluster started here is shut down at its end."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Relative paths in a recipe mean the driver's folder, in a trial too.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    if not os.isatty(2):
        os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import ray

    if ray.is_initialized():
        yield
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, object] = {"log_to_driver": True, "logging_level": logging.WARNING}
    if address == "local":
        options["num_cpus"] = (cluster.num_cpus or os.cpu_count() or 1) + SPARE_CPUS
    # The driver's folder is the workers' too, so that `python -m ray_jobs.x` works without installation.
    ray.init(address=address, **options)
    quiet_data()
    try:
        yield
    finally:
        ray.shutdown()


def quiet_data() -> None:
    """Keep Ray Data to errors and its progress bar."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.log_internal_stack_trace_to_stdout = False
