"""Data-parallel fine-tuning on Ray Train: the trainer of a recipe, and what each worker runs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray_jobs.common.kept import last_checkpoint
from ray_jobs.common.training_group import group_of_workers, summing
from recsys.config import Recipe, recipe_from_dict, target_codes
from recsys.errors import RecipeError
from recsys.evaluation.report import METRIC
from recsys.preparation.prepared import QUESTIONS_DIR, Prepared


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
        name: of the training, in `storage`.
        storage: folder of the trainings.
        callbacks: Ray Train's.
        again: epochs of a retraining, which does not validate; None: a training that does.
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
            "shared": str(prepared.folder / QUESTIONS_DIR / store.name),
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


def train_loop(config: dict[str, Any]) -> None:
    """What each worker runs: epochs until the last one, or until they help no more."""
    loop = _Loop(config)
    loop.resume()
    loop.check_samples()
    while not loop.is_done():
        loop.report(loop.epoch())


class _Loop:
    """One worker's epochs: `recsys.training.worker.Worker` between Ray Train's shard and reports.

    Args:
        config: see `build_trainer`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        import ray.train
        import ray.train.torch
        import torch

        from recsys.artifacts.checkpoint import Progress
        from recsys.text.text_store import TextStore
        from recsys.training.build import build_two_tower
        from recsys.training.worker import Worker

        self._config = config
        self.recipe = recipe = recipe_from_dict(config["recipe"])
        prepared = Prepared(Path(config["prepared"]))
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        if not recipe.train.use_gpu:
            torch.set_num_threads(max(1, int(recipe.train.cpus_per_worker)))
        self.validates = not config["again"]
        # A retraining holds nothing out: it learns one window further, and does not validate.
        until = "head" if self.validates else "valid"
        self.model, item_rows = build_two_tower(recipe, prepared, until)
        store = TextStore.open(Path(config["store"]))
        self.model.items.start_from(store.vectors, recipe.model.whitening)
        self.device = ray.train.torch.get_device()
        self.model.to(self.device)
        self.worker = Worker(
            recipe, prepared, store, self.model, item_rows, self.rank, self.world, self.device,
            until=until, shared=Path(config["shared"]),
        )  # fmt: skip
        self.progress = Progress(until=until)
        self.total = summing(self.world, self.device)
        self.num_steps = recipe.train.epochs * steps_per_epoch(recipe, prepared)
        self.shard = ray.train.get_dataset_shard("train")
        mine, codes = prepared.shards[self.rank :: self.world], target_codes(recipe)
        _, self.head_questions = prepared.questions(
            until, codes, shards=mine, most=recipe.train.head_rows, seed=recipe.seed
        )
        _, self.valid_questions = prepared.questions(
            "valid", codes, shards=mine, most=recipe.train.valid_rows, seed=recipe.seed
        )

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one; then share gradients."""
        import ray.train.torch

        from recsys.artifacts import checkpoint as files

        last = last_checkpoint(self._config)
        if last is not None:
            self.progress = files.load_model(last, self.model, self.worker.head)
            files.load_optimizer(last, self.worker.optimizer)
            self.worker.step = self.progress.step
            self.worker.cache.expire(self.progress.step)
        if self.world > 1:
            self.worker.wrapped = ray.train.torch.prepare_model(self.model, move_to_device=False)

    def check_samples(self) -> None:
        """Refuse samples of the windows' baskets that are empty on all workers.

        Raises:
            RecipeError: one is.
        """
        samples = {"valid_rows": self.valid_questions} if self.validates else {}
        samples |= {"head_rows": self.head_questions} if self.recipe.model.side_features else {}
        for name, questions in samples.items():
            if not self.total(len(questions))[0]:
                raise RecipeError(
                    "the sample of the window's baskets holds none", field=f"train.{name}",
                    value=getattr(self.recipe.train, name), fix="take a larger one",
                )  # fmt: skip

    def is_done(self) -> bool:
        """Whether all epochs are trained, or the last ones were no better (early stopping)."""
        return is_done(self.progress.curve, self.recipe, self._config["again"])

    def epoch(self) -> dict[str, Any]:
        """Train one epoch, fit the head, validate; returns the point of the curve."""
        started = time.monotonic()
        users = _batches(self.shard, self.recipe.train.batch_size)
        loss = self.worker.train_epoch(users, self.num_steps, self._all_have)
        trained = time.monotonic()
        measured = self._measured()
        loss_sum = self.total(loss)[0] / self.world
        if not self.worker.step:
            raise RecipeError(
                "no step was taken: some worker never got a user with anything to predict",
                field="train.num_workers", value=self.world,
                fix="use fewer workers, a longer log, or other data.target_events",
            )  # fmt: skip
        self.progress.epoch += 1
        self.progress.step = self.worker.step
        return {
            "epoch": self.progress.epoch,
            "step": self.progress.step,
            "loss": loss_sum,
            **measured,
            "train_s": trained - started,
            "valid_s": time.monotonic() - trained,
        }

    def _all_have(self, more: bool) -> bool:
        """Whether every worker has another batch: a step takes all of them."""
        return self.total(float(more))[0] == self.world

    def _measured(self) -> dict[str, float]:
        import torch.distributed as dist

        measured = {}
        if self.recipe.model.side_features:
            examples = self.worker.head_examples(self.head_questions)
            reduce = dist.all_reduce if self.world > 1 else None
            measured["head_loss"] = self.worker.fit_head(examples, reduce)
        if self.validates:
            gain, count = self.total(*self.worker.validate(self.valid_questions))
            measured |= {METRIC: gain / max(count, 1), "num_valid": count}
        return measured

    def report(self, point: dict[str, Any]) -> None:
        """Add the point to the curve; the first worker keeps a checkpoint."""
        import ray.train

        from recsys.artifacts import checkpoint as files

        self.progress.curve.append(point)
        self.model.to(self.device)
        with tempfile.TemporaryDirectory() as folder:
            saved = None
            if self.rank == 0:
                files.save(
                    Path(folder), self.model, self.worker.head, self.worker.optimizer, self.progress
                )
                saved = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(point, checkpoint=saved)


def is_done(curve: list[dict[str, Any]], recipe: Recipe, again: int | None = None) -> bool:
    """Whether a training has its last epoch: it was, or the last ones were no better.

    Args:
        curve: of the epochs so far.
        recipe: of the training.
        again: see `build_trainer`.
    """
    from recsys.training.optim import should_stop

    if len(curve) >= (again or recipe.train.epochs):
        return True
    if again:
        return False
    return should_stop([point[METRIC] for point in curve], recipe.train.patience)


def steps_per_epoch(recipe: Recipe, prepared: Prepared) -> int:
    """Steps of each worker in an epoch, for the schedule."""
    users = prepared.summary["counts"]["users"] // recipe.train.num_workers
    return max(1, -(-users // recipe.train.batch_size))


def _batches(shard: Any, batch_size: int) -> Iterator[Any]:
    from recsys.data.histories import UserEvents

    for table in shard.iter_batches(batch_size=batch_size, batch_format="pyarrow"):
        yield UserEvents.from_arrow(table)
