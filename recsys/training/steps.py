"""One worker's steps, without Ray, over any iterators of histories.

Legend: N distinct items of a batch, T their distinct texts, W workers, I items.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from recsys.arrays import Float32s, Int64s
from recsys.config import Recipe, target_codes
from recsys.data.histories import UserEvents
from recsys.errors import RecipeError
from recsys.features.windows import TrainingBatch, event_weights, training_batch
from recsys.model.batch import Batch
from recsys.model.exchange import gather_vectors, is_distributed, split_texts
from recsys.model.ranking_head import ScoringHead
from recsys.model.sharding import clip_grad_norm
from recsys.model.two_tower import TwoTower
from recsys.model.vector_cache import VectorCache
from recsys.preparation.prepared import Prepared
from recsys.schema import EVENT_CODE
from recsys.text.text_store import TextStore
from recsys.training.collate import DistinctRows, fresh_texts
from recsys.training.negatives import NegativeSampler, popularity_share
from recsys.training.optim import build_optimizer, warmup_cosine

#: See `Steps.train_parts`.
Agree = Callable[[bool, float | None], bool]


@dataclass
class Steps:
    """What a training worker trains with, and its steps.

    Args:
        recipe: the recipe.
        prepared: the prepared data.
        store: hidden states of the texts.
        model, item_rows: see `build_two_tower`.
        rank, world: number of this worker, and of all.
        parts, num_parts: what this worker plays of the training's parts, and how many there are. A
            part has users, questions and random numbers of its own. By default each worker plays
            one; where workers are lost, others play two, and the training stays what it was.
        device: where the model lives.
        wrapped: the module to call for the loss; DDP around `model`, or None for `model` itself.
        until: the cut that the encoders learn until; the head is fitted on the window that begins
            there.
        shared: folder for what depends on no weight, which all trainings on these prepared data
            and this text store share; None: it is computed in each.
    """

    recipe: Recipe
    prepared: Prepared
    store: TextStore
    model: TwoTower
    item_rows: Tensor
    rank: int = 0
    world: int = 1
    parts: Sequence[int] = ()
    num_parts: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    wrapped: nn.Module | None = None
    until: str = "head"
    step: int = 0
    shared: Path | None = None

    def __post_init__(self) -> None:
        train, catalogue = self.recipe.train, self.prepared.catalogue
        self.num_parts = self.num_parts or self.world
        self.parts = tuple(self.parts) or (self.rank,)
        self.text_rows = catalogue.text_rows.astype(np.int64)
        self.model.language.in_bfloat16 = train.precision == "bfloat16"
        #: Whether the language model learns; else no text vector ever grows old.
        self.trains_texts = any(each.requires_grad for each in self.model.language.parameters())
        max_age = train.max_vector_age if self.trains_texts else sys.maxsize
        self.cache = VectorCache(self.store.vectors, max_age)
        self.codes = target_codes(self.recipe)
        self.weights = event_weights(self.codes, EVENT_CODE, train.event_weights)
        counts = self.prepared.stats(self.until).num_targets
        self.negatives = NegativeSampler(counts)
        self.log_share = np.log(popularity_share(counts)).astype(np.float32)
        torch.manual_seed(self.recipe.seed)
        self.head = ScoringHead(self.recipe.model.temperature)
        self.cut_us = int(self.prepared.summary["cuts_us"][self.until])
        # Updates that start from nothing need the full rate; weights that know much do not.
        is_lora = self.recipe.model.tuning == "lora"
        slow = [] if is_lora else list(self.model.language.parameters())
        self.optimizer = build_optimizer(self.model, train, slow)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def rng(self, *key: int, part: int | None = None) -> np.random.Generator:
        """Random numbers that depend on seed, part and a key alone: the same after a resume."""
        part = self.parts[0] if part is None else part
        return np.random.default_rng([self.recipe.seed, part, *key])

    def batch(
        self, users: UserEvents, part: int | None = None, number: int = 0
    ) -> TrainingBatch | None:
        """A batch of the next step of some users' histories; None if it has no target.

        Args:
            users: of the batch.
            part: that they are of; by default this worker's first.
            number: of the step's batches of the part.
        """
        batch = training_batch(
            users.before(self.cut_us),
            max_history=self.recipe.model.max_history,
            windows_per_user=self.recipe.train.windows_per_user,
            weights=self.weights,
            rng=self.rng(*_key(1, self.step, number), part=part),
        )
        return batch if len(batch.target_items) else None

    def train_step(self, batch: TrainingBatch, num_steps: int) -> float:
        """A step of one batch; see `take_step`."""
        return self.take_step([[batch]], num_steps)

    def take_step(self, rounds: Sequence[Sequence[TrainingBatch]], num_steps: int) -> float:
        """One step of the optimiser; returns the sum of the losses of this worker's parts.

        The gradient is the mean over all parts. A part's is that of one batch with the targets of
        all its rounds, against the same negatives; memory holds one round at a time.

        Args:
            rounds: batches of this worker's parts, once or (`train.accumulate`) several times.
            num_steps: steps of the whole run, for the schedule.
        """
        rngs = [self.rng(4, self.step, part=part) for part in self.parts]
        samples = [self.negatives.sample(self.recipe.train.num_negatives, rng) for rng in rngs]
        weights = np.array([[float(b.target_weights.sum()) for b in batches] for batches in rounds])
        shares = weights / np.maximum(weights.sum(axis=0), 1e-9)
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for number, batches in enumerate(rounds):
            is_last = number == len(rounds) - 1
            # DDP takes the mean over workers, and not over parts.
            factors = torch.from_numpy(shares[number]).float() * (self.world / self.num_parts)
            with nullcontext() if is_last else self._alone():
                losses = self._forward(batches, number, samples, rngs)
                (losses * factors.to(losses.device)).sum().backward()  # type: ignore[no-untyped-call]
            total += float((losses.detach().cpu() * torch.from_numpy(shares[number])).sum())
        self._update(num_steps)
        self.step += 1
        return total

    def _alone(self) -> AbstractContextManager[None]:
        """A context in which DDP leaves this worker's gradients to it."""
        if isinstance(self.wrapped, DistributedDataParallel):
            return self.wrapped.no_sync()
        return nullcontext()

    def _forward(
        self,
        batches: Sequence[TrainingBatch],
        number: int,
        samples: Sequence[tuple[Int64s, Float32s]],
        rngs: Sequence[np.random.Generator],
    ) -> Tensor:
        """[parts] losses of a round; its fresh text vectors go to the cache.

        Args:
            batches: one of each part of this worker.
            number: of the round.
            samples: negatives of each part, and the log of their expected numbers of draws.
            rngs: of each part, to choose texts with.
        """
        rows = [
            DistinctRows.of(batch, candidates, self.text_rows)
            for batch, (candidates, _) in zip(batches, samples, strict=True)
        ]
        self.model.train()
        self.model.language.eval()  # the cache stands for what it would compute
        texts = self._texts_to_encode([each.texts for each in rows], rngs)
        collated = []
        for place, part in enumerate(self.parts):  # dropout, too, is the same after a resume
            seed = int(self.rng(*_key(5, self.step, number), part=part).integers(2**63))
            given = batches[place], rows[place], texts, samples[place][1], seed
            collated.append(self._collate(*given, is_first=place == 0).to(self.device))
        losses, vectors = (self.wrapped or self.model)(*collated)
        self.cache.put(np.concatenate(texts), vectors, self.step)
        return losses

    def descend(self, loss: Tensor, num_steps: int) -> None:
        """One step of the optimiser, down the gradient of a loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._update(num_steps)

    def _update(self, num_steps: int) -> None:
        """Let the optimiser step, at the schedule's learning rate, with clipped gradients."""
        train = self.recipe.train
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * warmup_cosine(self.step, num_steps, train.warmup_fraction)
        clip_grad_norm(self.model.parameters(), train.clip_norm)
        self.optimizer.step()

    def train_epoch(
        self, batches: Iterable[UserEvents], num_steps: int, agree: Agree | None = None
    ) -> float:
        """Steps over an epoch's batches of one part; see `train_parts`."""
        return self.train_parts([batches], num_steps, agree)

    def train_parts(
        self,
        streams: Sequence[Iterable[UserEvents]],
        num_steps: int,
        agree: Agree | None = None,
    ) -> float:
        """Steps over an epoch's batches; returns the mean loss, NaN if there was no step.

        Args:
            streams: the users of each batch, of each part of this worker.
            num_steps: steps of the whole run, for the schedule.
            agree: whether all workers have another batch, given whether this one has and the loss
                of its last step, if it has taken one since: one that went on alone would wait for
                ever. None: this one is alone.

        Raises:
            RecipeError: a loss is not finite.
        """
        agree = agree or self.goes_on
        total, num_losses, loss = 0.0, 0, 0.0
        iterators = [iter(stream) for stream in streams]
        goes_on = True
        while goes_on:
            rounds: list[list[TrainingBatch]] = []
            while goes_on and len(rounds) < self.recipe.train.accumulate:
                # A batch without targets is passed over before the workers agree: a step that one
                # of them left out would leave the others waiting for its gradient.
                found = [
                    self._next(each, part, len(rounds))
                    for each, part in zip(iterators, self.parts, strict=True)
                ]
                batches = [each for each in found if each is not None]
                has_all = len(batches) == len(found)
                goes_on = agree(has_all, None if rounds else loss)
                if goes_on:
                    rounds.append(batches)
            if rounds:
                loss = self.take_step(rounds, num_steps)
                total, num_losses = total + loss, num_losses + 1
                if not goes_on:
                    agree(False, loss)
        return total / num_losses if num_losses else float("nan")

    def _next(self, users: Iterator[UserEvents], part: int, number: int) -> TrainingBatch | None:
        """The next batch of a part that has a target, if there is one."""
        found = (self.batch(each, part, number) for each in users)
        return next((batch for batch in found if batch is not None), None)

    def goes_on(self, more: bool, loss: float | None) -> bool:
        """Whether there is more, if the last loss was one.

        Raises:
            RecipeError: the loss is not finite.
        """
        if loss is not None and not np.isfinite(loss):
            raise RecipeError(
                f"training has diverged: the loss of step {self.step} is {loss}",
                field="train.learning_rate", value=self.recipe.train.learning_rate,
                fix="use a lower one, or a lower train.clip_norm",
            )  # fmt: skip
        return more

    def hidden_states(self, texts: Int64s) -> tuple[Tensor, Tensor]:
        """[n, L, H] hidden states at the language model's split, and mask [n, L], of some texts."""
        return self.store.batch(texts)

    def _texts_to_encode(
        self, texts: Sequence[Int64s], rngs: Sequence[np.random.Generator]
    ) -> list[Int64s]:
        """[W] text rows that each worker encodes with gradient in this round.

        Refreshes those of the batches' other texts whose cached vectors are too old, for all
        workers: their caches stay the same.

        Args:
            texts: [T] distinct texts of each part's batch, most wanted first.
            rngs: choose among them.
        """
        budget = self.recipe.train.fresh_texts_per_step if self.trains_texts else 0
        if budget == 0:
            return [texts[0][:0]]
        chosen = [
            self.cache.split(each, budget, self.step, rng)
            for each, rng in zip(texts, rngs, strict=True)
        ]
        fresh, stale = (np.concatenate(each) for each in zip(*chosen, strict=True))
        if not is_distributed(self.world):
            if len(texts) > 1:
                fresh = np.unique(fresh)
                stale = np.setdiff1d(stale, fresh)
            self.cache.refresh(stale, self.step, self._encode)
            return [fresh]
        parts, old = split_texts(fresh, stale)
        if sum(map(len, old)):
            with torch.no_grad():
                mine = self._encode(old[self.rank])
                vectors = gather_vectors(mine, [len(part) for part in old])
            self.cache.put(np.concatenate(old), vectors, self.step)
        return parts

    def _collate(
        self,
        batch: TrainingBatch,
        rows: DistinctRows,
        texts: list[Int64s],
        log_expected: Float32s,
        seed: int,
        *,
        is_first: bool,
    ) -> Batch:
        """The model's input; `texts` are of `_texts_to_encode`, read for a round's first batch."""
        mine = texts[self.rank if len(texts) > 1 else 0]
        hidden, mask = self.hidden_states(mine if is_first else mine[:0])
        return Batch(
            fresh=fresh_texts(hidden, mask, texts, rows.texts),
            cached_TH=self.cache.vectors[torch.from_numpy(rows.texts)],
            text_of_item_N=rows.text_of_item_N,
            item_rows_NR=self.item_rows[torch.from_numpy(rows.items)],
            windows=batch.windows,
            window_items_BE=rows.window_items_BE,
            target_states_P=batch.target_states,
            target_items_P=rows.target_items_P,
            target_weights_P=batch.target_weights,
            candidates_C=rows.candidates_C,
            log_expected_C=torch.from_numpy(log_expected),
            log_share_N=torch.from_numpy(self.log_share[rows.items]),
            seed=seed,
        )

    def _encode(self, texts: Int64s) -> Tensor:
        hidden, mask = self.hidden_states(texts)
        return self.model.language(hidden.to(self.device), mask.to(self.device))


def _key(kind: int, step: int, number: int) -> list[int]:
    """The key of one round's random numbers; a step of one round has the step's."""
    return [kind, step, number] if number else [kind, step]
