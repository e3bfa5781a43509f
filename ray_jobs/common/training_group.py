"""Groups of Ray Train workers: how many a cluster holds, and a trainer on one of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray_jobs.common.cluster import READER_CPUS, SPARE_CPUS, is_local
from ray_jobs.common.kept import Checkpoints
from ray_jobs.common.lost_workers import remarks_printed
from ray_jobs.common.progress import printing_epochs
from recsys.config import Recipe, Train
from recsys.errors import RecipeError

#: A trial's driver only waits; drivers that took whole CPUs would starve their own workers.
DRIVER_CPUS = 0.01
#: Seconds between two looks for room for more workers, at least.
RESIZE_S = 5.0


def trials_at_once(recipe: Recipe) -> int:
    """How many groups of workers the cluster is asked for at once; see `groups_that_fit`.

    Raises:
        RecipeError: a cluster of our own does not hold even one; it would be waited for in vain.
    """
    import ray

    resources = ray.cluster_resources()
    return groups_that_fit(
        recipe, resources.get("CPU", 0), resources.get("GPU", 0), grows=not is_local(recipe.ray)
    )


def groups_that_fit(recipe: Recipe, cpus: float, gpus: float, *, grows: bool) -> int:
    """How many groups of workers a cluster holds, leaving Ray Data a CPU to read with.

    A cluster that grows with what is asked of it may hold none yet: it is asked for one. Where the
    recipe lets fewer workers train, one group takes what there is.

    Raises:
        RecipeError: the cluster does not grow and cannot hold one.
    """
    train = recipe.train

    def of(workers: int) -> int:
        fit = int((cpus - READER_CPUS) // (workers * train.cpus_per_worker + DRIVER_CPUS))
        return min(fit, int(gpus // workers)) if train.use_gpu else fit

    if of(train.fewest_workers) < 1 and not grows:
        raise _too_small(recipe, cpus, gpus)
    return max(1, of(train.most_workers))


def _too_small(recipe: Recipe, cpus: float, gpus: float) -> RecipeError:
    """The refusal of a cluster of our own, in numbers of the machine: the spare CPUs are none."""
    train, given = recipe.train, recipe.ray.num_cpus
    workers, each = train.fewest_workers, train.cpus_per_worker
    real = max(0, cpus - SPARE_CPUS)
    most = int((cpus - READER_CPUS - DRIVER_CPUS) // each)
    needs, has = f"{_count(workers * each, 'CPU')} ({each:g} each)", _count(real, "CPU")
    if train.use_gpu:
        most = min(most, int(gpus))
        needs, has = f"{needs} and {_count(workers, 'GPU')}", f"{has} and {_count(gpus, 'GPU')}"
    where = "this machine has" if given is None else "ray.num_cpus and this machine give"
    return RecipeError(
        f"training on {_count(workers, 'worker')} needs {needs}, {where} {has}",
        field="train.num_workers", value=workers,
        fix=f"use at most {_count(most, 'worker')}, or a cluster (ray.address)" if most > 0 else
        "use a lower train.cpus_per_worker, no train.use_gpu, or a cluster (ray.address)",
    )  # fmt: skip


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}" if number == 1 else f"{number:g} {what}s"


def group_of_workers(
    recipe: Recipe,
    loop: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    name: str,
    storage: Path,
    callback: Any,
    *,
    max_failures: int | None = None,
) -> Any:
    """A Ray Train trainer on the workers that the recipe's `train` asks for.

    The workers keep checkpoints of their own, see `ray_jobs.common.kept`: Ray Train's list of them
    is rewritten in place, and a disk that fills tears it.

    Args:
        recipe: the recipe.
        loop: what each worker runs.
        config: what it is told.
        name: of the run, in `storage`.
        storage: folder of the runs.
        callback: Ray Train's, for its controller.
        max_failures: how often lost workers are replaced; -1: always. None: as the recipe says.
    """
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    train = recipe.train
    resources = {"CPU": train.cpus_per_worker, **({"GPU": 1} if train.use_gpu else {})}
    failures = train.max_failures if max_failures is None else max_failures
    # A worker that hangs is found by the others, which wait for its part of a sum, or by Ray Train,
    # which it does not answer: all workers are replaced, as where one was lost.
    hang_s = round(60 * train.hang_minutes)
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(hang_s)
    scaling: dict[str, Any] = {
        "num_workers": _asked_of_ray(train),
        "elastic_resize_monitor_interval_s": _looks_every_s(train),
        "use_gpu": train.use_gpu, "resources_per_worker": resources,
    }  # fmt: skip
    return TorchTrainer(
        loop,
        # The head is fitted on CPUs, whatever the encoders train on.
        torch_config=TorchConfig(
            backend="cpu:gloo,cuda:nccl" if train.use_gpu else "gloo", timeout_s=hang_s
        ),
        train_loop_config=config,
        scaling_config=ScalingConfig(**scaling),
        run_config=RunConfig(
            name=name,
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=failures),
            callbacks=[callback],
            logging_config=LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]
        ),
    )


def _looks_every_s(train: Train) -> float:
    """Seconds between two looks for room for more workers.

    When they come, all go on from the last checkpoint: more often than one is kept it is not worth
    it.
    """
    minutes = train.checkpoint_minutes
    return max(RESIZE_S, 60 * (minutes if minutes is not None else 1))


def _asked_of_ray(train: Train) -> int | tuple[int, int]:
    fewest, most = train.fewest_workers, train.most_workers
    return (fewest, most) if train.is_elastic else most


def fit(
    build: Callable[[Path], Any], checkpoints: Checkpoints, line: Callable[[dict[str, Any]], str]
) -> None:
    """Train to the end; the line of each epoch, and of each loss of workers, is printed.

    Args:
        build: makes the trainer, given the file of what is to be printed.
        checkpoints: of the training.
        line: of an epoch.
    """
    with printing_epochs(checkpoints, line), remarks_printed() as remarks:
        try:
            build(remarks).fit()
        except SystemExit:  # so Train answers Ctrl-C
            raise KeyboardInterrupt from None


def summing(world: int, device: Any) -> Callable[..., list[float]]:
    """A function that sums each of its arguments over all workers."""
    import torch
    import torch.distributed as dist

    def total(*values: float) -> list[float]:
        if world == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(summed)
        return summed.tolist()

    return total
