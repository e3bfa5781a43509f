"""Prepared data -> a checkpoint: data-parallel fine-tuning on Ray Train.

    python -m ray_jobs.train --config recipes/demo.yaml

Killed workers are replaced and go on from the last epoch; a run started again under the same recipe
does the same.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ray_jobs.common.cluster import READER_CPUS, SPARE_CPUS, connected, is_local
from ray_jobs.common.giving_up import giving_up
from ray_jobs.common.kept import best_checkpoint, drop_torn, last_checkpoint, latest_checkpoint
from ray_jobs.common.progress import epoch_line, printing_epochs
from ray_jobs.common.texts import ensure_store, store_folder
from recsys.artifacts.checkpoint import PROGRESS
from recsys.config import Recipe, recipe_from_dict, target_codes
from recsys.errors import DataError, RecipeError
from recsys.preparation.prepared import PREPARED, SUMMARY_FILE, Prepared
from recsys.storage.outputs import write_json
from recsys.storage.reading import read_json
from recsys.text.pretrained import fingerprint, locate
from recsys.training.pretraining.adapted import adapted

WINNER_FILE = "winner.json"
RAY_DIR = "ray"
METRIC = "ndcg@10"

#: A trial's driver only waits; drivers that took whole CPUs would starve their own workers.
DRIVER_CPUS = 0.01


def plan(recipe: Recipe) -> list[str]:
    """What a run would do."""
    check_prepared(recipe)
    train = recipe.train
    device = "GPU" if train.use_gpu else "CPU"
    return [
        f"read {recipe.root / PREPARED}",
        f"train {recipe.model.language_model} ({recipe.model.tuning}) on {train.num_workers} "
        f"{device} workers, at most {train.epochs} epochs, {train.optimizer} "
        f"at {train.learning_rate:g}",
        f"write {recipe.root / WINNER_FILE}",
    ]


def prepared_for(recipe: Recipe) -> Prepared:
    """The prepared data that a recipe's workers train on.

    Raises:
        DataError: there are none of this recipe, see `Prepared.of`.
        RecipeError: there are fewer history shards than workers.
    """
    prepared = Prepared.of(recipe)
    prepared.check_workers(recipe.train.num_workers)
    return prepared


def check_prepared(recipe: Recipe) -> None:
    """For a dry run: what `prepared_for` would refuse; nothing where `prepare` is yet to run."""
    if (recipe.root / PREPARED / SUMMARY_FILE).is_file():
        prepared_for(recipe)


def run_key(recipe: Recipe, prepared: Prepared, *more: str) -> str:
    """Name part of a run: the same recipe and data resume, any other start afresh."""
    parts = [
        recipe.fingerprint("data", "model", "train", *more),
        # A model's folder may be rewritten under its name.
        fingerprint(locate(recipe.model.language_model))[:8],
        prepared.summary["data_fingerprint"][:8],
    ]
    return "-".join(parts)


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

    A cluster that grows with what is asked of it may hold none yet: it is asked for one.

    Raises:
        RecipeError: the cluster does not grow and cannot hold one.
    """
    train = recipe.train
    fit = int((cpus - READER_CPUS) // (train.num_workers * train.cpus_per_worker + DRIVER_CPUS))
    if train.use_gpu:
        fit = min(fit, int(gpus // train.num_workers))
    if fit < 1 and not grows:
        raise _too_small(recipe, cpus, gpus)
    return max(1, fit)


def _too_small(recipe: Recipe, cpus: float, gpus: float) -> RecipeError:
    """The refusal of a cluster of our own, in numbers of the machine: the spare CPUs are none."""
    train, given = recipe.train, recipe.ray.num_cpus
    workers, each = train.num_workers, train.cpus_per_worker
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


def run(recipe: Recipe) -> Path:
    """Train one recipe and name its best checkpoint the winner."""
    prepared = prepared_for(recipe)
    recipe = adapted(recipe, prepared)
    with connected(recipe.ray, dashboard=True):
        trials_at_once(recipe)
        ensure_store(recipe, prepared)
        name, storage = f"train-{run_key(recipe, prepared)}", recipe.root / RAY_DIR
        trainer = build_trainer(recipe, prepared, store_folder(recipe, prepared), name, storage)
        fit(trainer, storage / name, _line(recipe.train.epochs))
        checkpoint, metrics = best_checkpoint(storage / name, METRIC)
        choose(recipe, prepared, checkpoint, metrics, trials=[])
    return recipe.root / WINNER_FILE


def choose(
    recipe: Recipe,
    prepared: Prepared,
    checkpoint: Path,
    metrics: dict[str, Any],
    trials: list[dict[str, Any]],
) -> None:
    """Name a checkpoint, or what it is retrained to, the run's winner; `embed` goes on from it."""
    progress = json.loads((checkpoint / "progress.json").read_text())
    goes_on = checkpoint
    if recipe.train.retrain:
        goes_on = retrain(recipe, prepared, int(metrics["epoch"]))
    write_json(
        recipe.root / WINNER_FILE,
        {
            "checkpoint": str(goes_on),
            "retrained": goes_on != checkpoint,
            "recipe": recipe.resolved(),
            "recipe_hash": recipe.fingerprint(),
            "data_fingerprint": prepared.summary["data_fingerprint"],
            "language_model": fingerprint(locate(recipe.model.language_model)),
            "metrics": {
                key: value for key, value in metrics.items() if key in (METRIC, "loss", "epoch")
            },
            "curve": progress["curve"],
            "trials": trials,
        },
    )


def retrain(recipe: Recipe, prepared: Prepared, epochs: int) -> Path:
    """Train anew until the validation window, fit the head on it; returns the checkpoint.

    Resumes like any other run. Nothing is left to choose by, so the epochs are given.
    """
    print(f"    training {epochs} epochs again, on everything before the test window", flush=True)
    name, storage = f"retrain-{run_key(recipe, prepared)}-{epochs}", recipe.root / RAY_DIR
    store = store_folder(recipe, prepared)
    trainer = build_trainer(recipe, prepared, store, name, storage, again=epochs)
    fit(trainer, storage / name, _line(epochs))
    return latest_checkpoint(storage / name)


def _line(epochs: int) -> Callable[[dict[str, Any]], str]:
    return lambda point: epoch_line(point, epochs, METRIC)


def fit(trainer: Any, run: Path, line: Callable[[dict[str, Any]], str]) -> None:
    """Train to the end; the line of each epoch is printed as it ends."""
    with printing_epochs(run, line):
        try:
            trainer.fit()
        except SystemExit:  # so Train answers Ctrl-C
            raise KeyboardInterrupt from None


def winner(recipe: Recipe, prepared: Prepared) -> tuple[Recipe, Path]:
    """The winning recipe and its checkpoint.

    Raises:
        DataError: nothing was trained yet, or not on these data, or on another language model.
    """
    path = recipe.root / WINNER_FILE
    if not path.is_file():
        raise DataError(
            "no trained model", where=path, fix="run `recsys tune` or `recsys train` first"
        )
    texts = dict.fromkeys(("checkpoint", "data_fingerprint", "language_model"), str)
    data = read_json(path, "run `recsys tune` or `recsys train` again", {**texts, "recipe": dict})
    checkpoint = Path(data["checkpoint"])
    if not (checkpoint / PROGRESS).is_file():
        raise DataError(
            "the winner's checkpoint is gone", where=path, field="checkpoint",
            value=str(checkpoint), fix="run `recsys tune` or `recsys train` again",
        )  # fmt: skip
    if data["data_fingerprint"] != prepared.summary["data_fingerprint"]:
        raise DataError(
            "the winner was trained on other data than are prepared now", where=path,
            field="data_fingerprint", value=data["data_fingerprint"],
            fix="run `recsys tune` or `recsys train` again",
        )  # fmt: skip
    chosen = recipe_from_dict(data["recipe"], where=path)
    language = chosen.model.language_model
    if data.get("language_model") != fingerprint(locate(language)):
        raise DataError(
            "the language model is not the one that the winner was trained on", where=path,
            field="language_model", value=language,
            fix="run `recsys tune` or `recsys train` again",
        )  # fmt: skip
    return chosen, checkpoint


def build_trainer(
    recipe: Recipe,
    prepared: Prepared,
    store: Path,
    name: str,
    storage: Path,
    callbacks: list[Any] | None = None,
    again: int | None = None,
) -> Any:
    """The Ray Train trainer of a recipe; paths are absolute, for its workers run elsewhere.

    Args:
        recipe: the recipe.
        prepared: the prepared data.
        store: the text store.
        name: of the run, in `storage`.
        storage: folder of the runs.
        callbacks: Ray Train's.
        again: epochs of a retraining, see `retrain`; None: a training run that validates.
    """
    import ray.data
    from ray.data import DataContext, ExecutionOptions, FileShuffleConfig
    from ray.train import DataConfig

    # Its second reader looks at the footers in processes of their own, which start anew in every
    # epoch and take seconds to; a shard here is one block, and there is nothing to learn from them.
    DataContext.get_current().use_datasource_v2 = False
    shards = [str(path) for path in prepared.shards]
    users = ray.data.read_parquet(
        shards, shuffle=FileShuffleConfig(seed=recipe.seed), override_num_blocks=len(shards)
    )
    return group_of_workers(
        recipe,
        train_loop,
        {
            "recipe": recipe.resolved(),
            "prepared": str(prepared.folder),
            "store": str(store),
            "again": again,
        },
        name,
        storage,
        metric=None if again else METRIC,
        callbacks=callbacks,
        datasets={"train": users},
        # Validation never goes through the split, which drops tail rows (ray#63285).
        dataset_config=DataConfig(
            datasets_to_split=["train"], execution_options=ExecutionOptions(preserve_order=True)
        ),
    )


def group_of_workers(
    recipe: Recipe,
    loop: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    name: str,
    storage: Path,
    *,
    metric: str | None = None,
    callbacks: list[Any] | None = None,
    **datasets: Any,
) -> Any:
    """A Ray Train trainer on the workers that the recipe's `train` asks for.

    Args:
        recipe: the recipe.
        loop: what each worker runs.
        config: what it is told.
        name: of the run, in `storage`.
        storage: folder of the runs.
        metric: the checkpoint with its highest value is kept; None: the latest.
        callbacks: Ray Train's.
        datasets: `datasets` and `dataset_config`, if any.
    """
    from ray.train import (
        CheckpointConfig,
        FailureConfig,
        LoggingConfig,
        RunConfig,
        ScalingConfig,
    )
    from ray.train.torch import TorchConfig, TorchTrainer

    drop_torn(storage / name)
    train = recipe.train
    resources = {"CPU": train.cpus_per_worker, **({"GPU": 1} if train.use_gpu else {})}
    return TorchTrainer(
        loop,
        # The head is fitted on CPUs, whatever the encoders train on.
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if train.use_gpu else "gloo"),
        train_loop_config={**config, "run": str(storage / name)},
        scaling_config=ScalingConfig(
            num_workers=train.num_workers, use_gpu=train.use_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=train.max_failures),
            checkpoint_config=CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute=metric, checkpoint_score_order="max"
            ),
            callbacks=[*(callbacks or []), giving_up()],
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
        **datasets,
    )


def train_loop(config: dict[str, Any]) -> None:
    """One worker: the loop around `recsys.training.worker.Worker`."""
    import ray.train
    import ray.train.torch
    import torch
    import torch.distributed as dist

    from recsys.artifacts import checkpoint as files
    from recsys.text.text_store import TextStore
    from recsys.training.build import build_two_tower
    from recsys.training.optim import should_stop
    from recsys.training.worker import Worker

    recipe = recipe_from_dict(config["recipe"])
    train = recipe.train
    prepared = Prepared(Path(config["prepared"]))
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    if not train.use_gpu:
        torch.set_num_threads(max(1, int(train.cpus_per_worker)))
    epochs = config["again"] or train.epochs
    # A retraining holds nothing out: it learns one window further, and does not validate.
    until = "valid" if config["again"] else "head"
    ranker, item_rows = build_two_tower(recipe, prepared, until)
    store = TextStore.open(Path(config["store"]))
    ranker.items.start_from(store.vectors, recipe.model.whitening)
    device = ray.train.torch.get_device()
    ranker.to(device)
    worker = Worker(recipe, prepared, store, ranker, item_rows, rank, world, device, until=until)
    progress = files.Progress(until=until)
    last = last_checkpoint(config)
    if last is not None:
        progress = files.load_model(last, ranker, worker.head)
        files.load_optimizer(last, worker.optimizer)
        worker.step = progress.step
        worker.cache.expire(progress.step)
    if world > 1:
        worker.wrapped = ray.train.torch.prepare_model(ranker, move_to_device=False)

    total = summing(world, device)
    reduce = dist.all_reduce if world > 1 else None

    def agree(more: bool) -> bool:
        return total(float(more))[0] == world

    mine = prepared.shards[rank::world]
    codes = target_codes(recipe)
    num_steps = train.epochs * steps_per_epoch(recipe, prepared)
    shard = ray.train.get_dataset_shard("train")
    _, head_questions = prepared.questions(
        until, codes, shards=mine, most=train.head_rows, seed=recipe.seed
    )
    _, valid_questions = prepared.questions(
        "valid", codes, shards=mine, most=train.valid_rows, seed=recipe.seed
    )
    samples = {"valid_rows": valid_questions} if not config["again"] else {}
    samples |= {"head_rows": head_questions} if recipe.model.side_features else {}
    for name, questions in samples.items():
        if not total(len(questions))[0]:
            raise RecipeError(
                "the sample of the window's baskets holds none", field=f"train.{name}",
                value=getattr(train, name), fix="take a larger one",
            )  # fmt: skip
    while progress.epoch < epochs:
        if not config["again"] and should_stop(progress.values(METRIC), train.patience):
            break
        started = time.monotonic()
        loss = worker.train_epoch(_batches(shard, train.batch_size), num_steps, agree)
        trained = time.monotonic()
        measured = {}
        if recipe.model.side_features:
            examples = worker.head_examples(head_questions)
            measured["head_loss"] = worker.fit_head(examples, reduce)
        if not config["again"]:
            gain, count = total(*worker.validate(valid_questions))
            measured |= {METRIC: gain / max(count, 1), "num_valid": count}
        loss_sum = total(loss)[0] / world
        if not worker.step:
            raise RecipeError(
                "no step was taken: some worker never got a user with anything to predict",
                field="train.num_workers", value=world,
                fix="use fewer workers, a longer log, or other data.target_events",
            )  # fmt: skip
        progress.epoch += 1
        progress.step = worker.step
        point = {
            "epoch": progress.epoch,
            "step": progress.step,
            "loss": loss_sum,
            **measured,
            "train_s": trained - started,
            "valid_s": time.monotonic() - trained,
        }
        progress.curve.append(point)
        ranker.to(device)
        with tempfile.TemporaryDirectory() as folder:
            saved = None
            if rank == 0:
                files.save(Path(folder), ranker, worker.head, worker.optimizer, progress)
                saved = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(point, checkpoint=saved)


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


def steps_per_epoch(recipe: Recipe, prepared: Prepared) -> int:
    """Steps of each worker in an epoch, for the schedule."""
    users = prepared.summary["counts"]["users"] // recipe.train.num_workers
    return max(1, -(-users // recipe.train.batch_size))


def _batches(shard: Any, batch_size: int) -> Iterator[Any]:
    from recsys.data.histories import UserEvents

    for table in shard.iter_batches(batch_size=batch_size, batch_format="pyarrow"):
        yield UserEvents.from_arrow(table)


def report(recipe: Recipe) -> list[str]:
    """The curve of the winner."""
    data = json.loads((recipe.root / WINNER_FILE).read_text())
    return [
        f"epoch {point['epoch']}: loss {point['loss']:.4f}, validation {METRIC} {point[METRIC]:.4f}"
        for point in data["curve"]
    ]


if __name__ == "__main__":
    from ray_jobs.cli import job_main

    job_main("train")
