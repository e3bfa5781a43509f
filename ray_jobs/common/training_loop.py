"""What each worker of a group runs: the epochs of one training, from checkpoint to checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ray_jobs.common.kept import Checkpoints
from ray_jobs.common.same_code import check_same_code
from ray_jobs.common.standstill import noticed
from ray_jobs.common.training_group import summing
from ray_jobs.common.work import Training, is_done
from recsys.arrays import Float32s
from recsys.config import Recipe, recipe_from_dict, target_codes
from recsys.data.histories import UserEvents
from recsys.data.time_split import Questions
from recsys.errors import RecipeError
from recsys.evaluation.report import METRIC
from recsys.preparation.prepared import QUESTIONS_DIR, Prepared
from recsys.storage.seals import text_sha256
from recsys.storage.shared import SharedFolder
from recsys.training.epoch_order import Share, after, dealt

if TYPE_CHECKING:
    from recsys.artifacts.progress import Progress

#: Text vectors that training has changed are kept in a checkpoint up to this size; of more, all are
#: computed anew when they are needed, in the training that goes on as in the one that stopped.
MOST_CACHE_BYTES = 2**30
#: Steps of the head's fit at most. One that starts from a fitted head, on a window that has moved
#: by days, had the loss of 200 steps within 0.003 after 20.
WARM_HEAD_STEPS = 30


class Group:
    """What a group of workers opens once, and the agreement between them.

    Args:
        folder: of the run.
        prepared: folder of the prepared data.
        store: folder of the text store.
        is_elastic: fewer workers may train than the recipe asks for.
    """

    def __init__(
        self, folder: SharedFolder, prepared: Path, store: Path, *, is_elastic: bool = False
    ) -> None:
        import ray.train
        import ray.train.torch

        from ray_jobs.common.feed import Feed
        from recsys.text.text_store import TextStore

        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        check_same_code(self.world)
        self.device = ray.train.torch.get_device()
        self.total = summing(self.world, self.device)
        #: When the group started; the same number on all workers.
        (self.life,) = self.total(time.time() if self.rank == 0 else 0.0)
        self.folder = folder
        for each in (prepared, store):
            folder.bring(each)
        self.prepared = Prepared(prepared)
        self.store = TextStore.open(store)
        self.feed = Feed(self.prepared, folder, takes_cpu=not is_elastic)
        self.shared = prepared / QUESTIONS_DIR / store.name
        self._questions: dict[tuple[object, ...], Questions] = {}

    def text_vectors(self, folder: Path) -> Float32s:
        """[T, H] vectors of all texts, memory-mapped."""
        from recsys.text.text_vectors import TextVectors

        self.folder.bring(folder)
        return TextVectors.open(folder).vectors

    def parts(self, recipe: Recipe) -> range:
        """The parts of a training that this worker plays: one, where no workers are missing."""
        return range(self.rank, recipe.train.most_workers, self.world)

    def questions(self, recipe: Recipe, window: str, most: int) -> list[Questions]:
        """The shares of this worker's parts in a sample of a window's baskets."""
        return [self._of_part(recipe, window, most, part) for part in self.parts(recipe)]

    def _of_part(self, recipe: Recipe, window: str, most: int, part: int) -> Questions:
        codes = target_codes(recipe)
        key = (window, most, recipe.seed, part, *codes)
        if key not in self._questions:
            mine = self.prepared.shards[part :: recipe.train.most_workers]
            _, self._questions[key] = self.prepared.questions(
                window, codes, shards=mine, most=most, seed=recipe.seed
            )
        return self._questions[key]


class Loop:
    """One worker's epochs: `recsys.training.worker.Worker` between the feed and the checkpoints.

    Args:
        training: what is trained.
        group: of the workers.
    """

    def __init__(self, training: Training, group: Group) -> None:
        import torch

        from recsys.artifacts.progress import Progress
        from recsys.model.sharding import shard
        from recsys.training.build import build_two_tower
        from recsys.training.worker import Worker

        self.training, self.group = training, group
        self.checkpoints = Checkpoints(Path(training.run), group.folder)
        self.recipe = recipe = recipe_from_dict(training.recipe)
        if not recipe.train.use_gpu:
            torch.set_num_threads(max(1, int(recipe.train.cpus_per_worker)))
        self.validates = not training.again
        store = group.store
        # A retraining holds nothing out: it learns one window further, and does not validate.
        until = "head" if self.validates else "valid"
        self.model, item_rows = build_two_tower(recipe, group.prepared, until)
        self.model.items.start_from(store.vectors, recipe.model.whitening)
        if training.start is not None:
            self.model.language.requires_grad_(False)
            vectors = group.text_vectors(Path(training.start.text_vectors))
            store = replace(store, vectors=vectors)
        if recipe.train.sharding == "full":
            shard(self.model, group.device)
        self.model.to(group.device)
        self.worker = Worker(
            recipe, group.prepared, store, self.model, item_rows, group.rank, group.world,
            group.parts(recipe), recipe.train.most_workers, group.device, until=until,
            shared=group.shared,
        )  # fmt: skip
        self.progress = Progress(until=until)
        #: Users of an epoch, and what their order depends on: each night reads others.
        self.num_users, self.order_seed = group.feed.num_users, recipe.seed
        if training.start is not None:
            self.num_users = math.ceil(training.start.users * self.num_users)
            self.order_seed = int(text_sha256(training.name), 16)
        self.num_steps = recipe.train.epochs * steps_per_epoch(recipe, self.num_users)
        self.head_questions = group.questions(recipe, until, recipe.train.head_rows)
        self.valid_questions = group.questions(recipe, "valid", recipe.train.valid_rows)
        self._saved_at = time.monotonic()
        self._shares: list[Share] = []
        #: Users of each part that this worker plays, in the present epoch.
        self._num_drawn: list[int] = []
        self._num_trained: list[int] = []

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one; then share gradients."""
        import ray.train.torch

        from recsys.artifacts import checkpoint as files

        worker = self.worker
        if self.group.rank == 0:
            self.checkpoints.sweep()
        last = self.checkpoints.last()
        if last is not None:
            self.progress = files.load_model(last, self.model, worker.head)
            files.load_optimizer(last, worker.optimizer)
            worker.step = self.progress.step
            if worker.trains_texts:
                files.load_cache(last, worker.cache, worker.step)
        if self.group.world > 1:
            worker.wrapped = ray.train.torch.prepare_model(self.model, move_to_device=False)

    def check_samples(self) -> None:
        """Refuse samples of the windows' baskets that are empty on all workers.

        Raises:
            RecipeError: one is.
        """
        samples = {"valid_rows": self.valid_questions} if self.validates else {}
        samples |= {"head_rows": self.head_questions} if self.recipe.model.side_features else {}
        for name, questions in samples.items():
            if not self.group.total(sum(map(len, questions)))[0]:
                raise RecipeError(
                    "the sample of the window's baskets holds none", field=f"train.{name}",
                    value=getattr(self.recipe.train, name), fix="take a larger one",
                )  # fmt: skip

    def judge_start(self) -> None:
        """Validate what a warm training starts from: as epoch 0 it is the first candidate."""
        if self.training.start is None or self.progress.curve:
            return
        started = time.monotonic()
        point = {"epoch": 0, "step": 0, **self._validated(), "train_s": 0.0}
        point["valid_s"] = time.monotonic() - started
        self.progress = replace(self.progress, curve=[point])
        self._keep(self.progress)

    def is_done(self) -> bool:
        """Whether all epochs are trained, or the last ones were no better (early stopping)."""
        return is_done(self.progress.curve, self.recipe, self.training.again)

    def epoch(self) -> None:
        """Train an epoch, or what is left of it; fit the head, validate, keep a checkpoint."""
        with noticed(self.model, self.recipe.train, self.group.world):
            self._epoch()

    def _epoch(self) -> None:
        started, progress, worker = time.monotonic(), self.progress, self.worker
        everybody: list[Share] = [[(0, self.num_users)]]
        self._shares = dealt(progress.left or everybody, worker.num_parts)
        self._num_drawn, self._num_trained = [0] * len(worker.parts), [0] * len(worker.parts)
        users = [self._users(place) for place in range(len(worker.parts))]
        worker.train_parts(users, self.num_steps, self._agree)
        trained = time.monotonic()
        if not worker.step:
            raise RecipeError(
                "no step was taken: some worker never got a user with anything to predict",
                field="train.num_workers", value=worker.num_parts,
                fix="use fewer workers, a longer log, or other data.target_events",
            )  # fmt: skip
        loss, num_losses = progress.losses
        point = {
            "epoch": progress.epoch + 1,
            "step": worker.step,
            "loss": loss / num_losses if num_losses else float("nan"),
            **self._measured(),
            "train_s": trained - started,
            "valid_s": time.monotonic() - trained,
        }
        self.progress = replace(
            progress, epoch=progress.epoch + 1, step=worker.step, left=None, losses=(0.0, 0),
            curve=[*progress.curve, point],
        )  # fmt: skip
        self._keep(self.progress)

    def _users(self, place: int) -> Iterator[UserEvents]:
        """Batches of the users that a part of this worker has before it."""
        share = self._shares[self.worker.parts[place]]
        size = self.recipe.train.batch_size
        for users in self.group.feed.batches(self.order_seed, self.progress.epoch, share, size):
            self._num_drawn[place] += len(users)
            yield users

    def _agree(self, more: bool, loss: float | None) -> bool:
        """Whether every worker has another batch: a step takes all of them.

        Where a loss is told, what was drawn before the last time that they agreed is trained.

        Raises:
            RecipeError: the last loss of some worker was not finite.
        """
        world, num_parts = self.group.world, self.worker.num_parts
        if loss is None:
            self._num_trained = list(self._num_drawn)
            return self.group.total(float(more))[0] == world
        loss_sum, num_losses = self.progress.losses
        minutes = self.recipe.train.checkpoint_minutes
        is_time = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        num_more, loss, num_late = self.group.total(
            float(more), loss, float(is_time and self.group.rank == 0)
        )
        goes_on = self.worker.goes_on(num_more == world, loss / num_parts)
        if any(self._num_trained):
            self.progress.losses = (loss_sum + loss / num_parts, num_losses + 1)
        if goes_on and num_late:
            self._keep_within()
        self._num_trained = list(self._num_drawn)
        return goes_on

    def _keep_within(self) -> None:
        """Keep a checkpoint within the epoch, with whom each worker has before it."""
        places = [0.0] * self.worker.num_parts
        for part, num_trained in zip(self.worker.parts, self._num_trained, strict=True):
            places[part] = float(num_trained)
        seen = self.group.total(*places)
        left = [after(share, int(num)) for share, num in zip(self._shares, seen, strict=True)]
        self._keep(replace(self.progress, step=self.worker.step, left=left))

    def _keep(self, progress: Progress) -> None:
        """Keep a checkpoint; the first worker writes it."""
        from recsys.artifacts import checkpoint as files

        worker = self.worker
        cache = worker.cache if worker.cache.changed_bytes <= MOST_CACHE_BYTES else None
        self.model.to(self.group.device)
        if self.group.rank == 0:
            self.checkpoints.keep(
                progress,
                lambda folder: files.save(
                    folder, self.model, worker.head, worker.optimizer, progress, cache
                ),
                METRIC if self.validates else None,
            )
        elif self.model.language.is_sharded:
            files.take_part(self.model, worker.optimizer)
        if cache is None:
            worker.cache.expire(worker.step)
        self._saved_at = time.monotonic()

    def _measured(self) -> dict[str, float]:
        import torch.distributed as dist

        measured = {}
        if self.recipe.model.side_features:
            examples = [
                self.worker.head_examples(questions, part)
                for part, questions in zip(self.worker.parts, self.head_questions, strict=True)
            ]
            reduce = dist.all_reduce if self.group.world > 1 else None
            steps = {} if self.training.start is None else {"num_steps": WARM_HEAD_STEPS}
            measured["head_loss"] = self.worker.fit_head(*examples, reduce=reduce, **steps)
        return measured | self._validated() if self.validates else measured

    def _validated(self) -> dict[str, float]:
        found = [
            self.worker.validate(questions, part)
            for part, questions in zip(self.worker.parts, self.valid_questions, strict=True)
        ]
        gain, count = self.group.total(*map(sum, zip(*found, strict=True)))
        return {METRIC: gain / max(count, 1), "num_valid": count}


def steps_per_epoch(recipe: Recipe, num_users: int) -> int:
    """Steps in an epoch, for the schedule."""
    train = recipe.train
    users = num_users // train.most_workers
    return max(1, -(-users // (train.batch_size * train.accumulate)))
