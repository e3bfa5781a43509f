"""One worker's training, without Ray: steps over any iterator of histories, head fit, validation.

Legend: N distinct items of a batch, T their distinct texts, W workers, I items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recsys import __version__
from recsys.arrays import Float32s, Int64s
from recsys.config import Recipe, target_codes
from recsys.data.histories import UserEvents
from recsys.data.time_split import Questions
from recsys.errors import RecipeError
from recsys.features.candidates import PAIR_FEATURES, Candidates
from recsys.features.item_to_item import Relations
from recsys.features.side_features import ITEM_FEATURES, PriceScale, item_features
from recsys.features.windows import TrainingBatch, event_weights, training_batch
from recsys.model.batch import Batch
from recsys.model.exchange import gather_vectors, is_distributed, split_texts
from recsys.model.head_fit import Reduce, fit_head
from recsys.model.ranking_head import HeadExamples, ScoringHead
from recsys.model.two_tower import TwoTower
from recsys.model.vector_cache import VectorCache
from recsys.preparation.prepared import Prepared
from recsys.ranking.scorer import Scorer
from recsys.schema import EVENT_CODE
from recsys.storage.computed import Arrays, computed_once
from recsys.storage.seals import json_sha256
from recsys.text.text_store import TextStore
from recsys.training.build import features_over_time
from recsys.training.collate import DistinctRows, fresh_texts
from recsys.training.head_examples import HeadQuestions
from recsys.training.negatives import NegativeSampler, popularity_share
from recsys.training.optim import build_optimizer, warmup_cosine
from recsys.training.validation import ValidationQuestions

#: Items sampled for the denominator of the head's softmax.
HEAD_SAMPLE = 500
#: Texts encoded together when the cache is refreshed.
TEXTS_AT_ONCE = 256


@dataclass
class Worker:
    """The state of one training worker.

    Args:
        recipe: the recipe.
        prepared: the prepared data.
        store: hidden states of the texts.
        model, item_rows: see `build_two_tower`.
        rank, world: number of this worker, and of all.
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
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    wrapped: nn.Module | None = None
    until: str = "head"
    step: int = 0
    shared: Path | None = None

    def __post_init__(self) -> None:
        train, catalogue = self.recipe.train, self.prepared.catalogue
        self.text_rows = catalogue.text_rows.astype(np.int64)
        self.model.language.in_bfloat16 = train.precision == "bfloat16"
        self.cache = VectorCache(self.store.vectors, train.max_vector_age)
        self.codes = target_codes(self.recipe)
        self.weights = event_weights(self.codes, EVENT_CODE, train.event_weights)
        counts = self.prepared.stats(self.until).num_targets
        self.negatives = NegativeSampler(counts)
        self.log_share = np.log(popularity_share(counts)).astype(np.float32)
        torch.manual_seed(self.recipe.seed)
        self.head = ScoringHead(self.recipe.model.temperature)
        self.standard_price = PriceScale.fit(catalogue.prices).standard(catalogue.prices)
        self.over_time = features_over_time(self.recipe, self.prepared, self.standard_price)
        self.cut_us = int(self.prepared.summary["cuts_us"][self.until])
        # Updates that start from nothing need the full rate; weights that know much do not.
        is_lora = self.recipe.model.tuning == "lora"
        slow = [] if is_lora else list(self.model.language.parameters())
        self.optimizer = build_optimizer(self.model, train, slow)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self._as_of: dict[str, tuple[Float32s, Relations]] = {}
        self._head: HeadQuestions | None = None
        self._validation: ValidationQuestions | None = None

    def rng(self, *key: int) -> np.random.Generator:
        """Random numbers that depend on seed, rank and a key alone: the same after a resume."""
        return np.random.default_rng([self.recipe.seed, self.rank, *key])

    def batch(self, users: UserEvents) -> TrainingBatch | None:
        """The next step's batch of some users' histories; None if it has no target."""
        batch = training_batch(
            users.before(self.cut_us),
            max_history=self.recipe.model.max_history,
            windows_per_user=self.recipe.train.windows_per_user,
            weights=self.weights,
            rng=self.rng(1, self.step),
        )
        return batch if len(batch.target_items) else None

    def train_step(self, batch: TrainingBatch, num_steps: int) -> float:
        """One step; returns the loss.

        Args:
            batch: see `batch`.
            num_steps: steps of the whole run, for the schedule.
        """
        rng = self.rng(4, self.step)
        candidates, log_expected = self.negatives.sample(self.recipe.train.num_negatives, rng)
        rows = DistinctRows.of(batch, candidates, self.text_rows)
        # Dropout, too, is the same after a resume.
        torch.manual_seed(int(self.rng(5, self.step).integers(2**63)))
        self.model.train()
        # No dropout in the language model: the cache stands for what it would compute.
        self.model.language.eval()
        parts = self._texts_to_encode(rows.texts, rng)
        collated = self._collate(batch, rows, parts, log_expected)
        loss, vectors = (self.wrapped or self.model)(collated.to(self.device))
        self.descend(loss, num_steps)
        fresh = np.concatenate(parts)
        if len(fresh):
            self.cache.put(fresh, vectors, self.step)
        self.step += 1
        return float(loss.detach())

    def descend(self, loss: Tensor, num_steps: int) -> None:
        """One step of the optimiser, at the schedule's learning rate, with clipped gradients."""
        train = self.recipe.train
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * warmup_cosine(self.step, num_steps, train.warmup_fraction)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), train.clip_norm)
        self.optimizer.step()

    def train_epoch(
        self,
        batches: Iterable[UserEvents],
        num_steps: int,
        agree: Callable[[bool, float], bool] | None = None,
    ) -> float:
        """Steps over an epoch's batches; returns the mean loss, NaN if there was no step.

        Args:
            batches: the users of each step.
            num_steps: steps of the whole run, for the schedule.
            agree: whether all workers have another batch, given whether this one has and its last
                loss: one that stepped alone would wait for ever. None: this one is alone.

        Raises:
            RecipeError: a loss is not finite.
        """
        agree = agree or self.goes_on
        total, num_losses, loss = 0.0, 0, 0.0
        iterator = iter(batches)
        while True:
            # A batch without targets is passed over before the workers agree: a step that one of
            # them left out would leave the others waiting for its gradient.
            batch = next((b for b in map(self.batch, iterator) if b is not None), None)
            if not agree(batch is not None, loss):
                return total / num_losses if num_losses else float("nan")
            assert batch is not None
            loss = self.train_step(batch, num_steps)
            total, num_losses = total + loss, num_losses + 1

    def goes_on(self, more: bool, loss: float) -> bool:
        """Whether there is more, if the last loss was one.

        Raises:
            RecipeError: the loss is not finite.
        """
        if not np.isfinite(loss):
            raise RecipeError(
                f"training has diverged: the loss of step {self.step} is {loss}",
                field="train.learning_rate", value=self.recipe.train.learning_rate,
                fix="use a lower one, or a lower train.clip_norm",
            )  # fmt: skip
        return more

    def scorer(self, as_of: str) -> Scorer:
        """Score with the model as it is, and statistics as of a cut; moves the model to the CPU."""
        self.model.language.eval()
        stale = self.cache.stale(self.step)
        for low in range(0, len(stale), TEXTS_AT_ONCE):
            self.cache.refresh(stale[low : low + TEXTS_AT_ONCE], self.step, self._encode)
        self.model.to("cpu")
        vectors = self.model.item_vectors(
            self.cache.vectors, self.prepared.catalogue.text_rows, self.item_rows
        )
        features, relations = self._counted(as_of)
        return Scorer.build(
            self.model.users, self.head, vectors, features, self.standard_price, relations,
            self.codes, self.recipe.model.max_history, self.over_time,
        )  # fmt: skip

    def _counted(self, as_of: str) -> tuple[Float32s, Relations]:
        """Item features and relations as of a cut; read once."""
        if as_of not in self._as_of:
            self._as_of[as_of] = (
                item_features(self.prepared.stats(as_of), self.standard_price),
                self.prepared.relations(as_of, self.store.content_similarity),
            )
        return self._as_of[as_of]

    def head_examples(self, questions: Questions) -> HeadExamples:
        """Examples of this worker's share of the head's questions."""
        scorer, train = self.scorer(self.until), self.recipe.train
        if self._head is None or self._head.questions is not questions:
            rng = np.random.default_rng([self.recipe.seed, 2])  # the same sample for every worker
            sample, log_expected = self.negatives.sample(HEAD_SAMPLE, rng)
            arrays = self._computed_once(
                [self.until, len(questions), train.head_rows, len(sample)],
                lambda: HeadQuestions.of(
                    scorer, questions, sample, log_expected, self.rng(6)
                ).arrays(),
            )
            self._head = HeadQuestions.from_arrays(questions, sample, arrays)
        return self._head.examples(scorer)

    def fit_head(self, examples: HeadExamples, reduce: Reduce | None = None) -> float:
        """Fit the head on all workers' questions, each worker reading its own; returns the loss.

        Args:
            examples: this worker's share.
            reduce: sums a tensor over all workers, in place.
        """
        return fit_head(
            self.head,
            examples,
            new_item_weight=self.recipe.train.new_item_weight,
            reduce=reduce,
        )

    def validate(self, questions: Questions) -> tuple[float, int]:
        """Sum of nDCG@10 over this worker's validation baskets, and their number."""
        scorer = self.scorer("valid")
        if self._validation is None or self._validation.questions is not questions:
            arrays = self._computed_once(
                ["validation", len(questions), self.recipe.train.valid_rows],
                lambda: ValidationQuestions.of(scorer, questions).candidates.arrays(),
            )
            candidates = Candidates.from_arrays(len(questions), arrays)
            self._validation = ValidationQuestions(questions, candidates)
        return self._validation.validate(scorer, self.recipe.seed)

    def _computed_once(self, key: list[Any], make: Callable[[], Arrays]) -> Arrays:
        """What `make` gives of this worker's share of some questions; see `shared`."""
        if self.shared is None:
            return make()
        whose = [self.recipe.seed, self.codes, self.rank, self.world]
        told = [*key, *whose, __version__, PAIR_FEATURES, ITEM_FEATURES]
        return computed_once(self.shared / f"{key[0]}-{json_sha256(told)[:16]}.safetensors", make)

    def hidden_states(self, texts: Int64s) -> tuple[Tensor, Tensor]:
        """[n, L, H] hidden states at the language model's split, and mask [n, L], of some texts."""
        return self.store.batch(texts)

    def _texts_to_encode(self, texts: Int64s, rng: np.random.Generator) -> list[Int64s]:
        """[W] text rows that each worker encodes with gradient in this step.

        Refreshes those of the batch's other texts whose cached vectors are too old, for all
        workers: their caches stay the same.

        Args:
            texts: [T] the batch's distinct texts, most wanted first.
            rng: chooses among them.
        """
        settings = self.recipe
        is_frozen = settings.model.tuning == "frozen"
        budget = 0 if is_frozen else settings.train.fresh_texts_per_step
        if budget == 0:
            return [texts[:0]]
        fresh, stale = self.cache.split(texts, budget, self.step, rng)
        if not is_distributed(self.world):
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
        parts: list[Int64s],
        log_expected: Float32s,
    ) -> Batch:
        """The model's input; `parts` are of `_texts_to_encode`."""
        hidden, mask = self.hidden_states(parts[self.rank if len(parts) > 1 else 0])
        return Batch(
            fresh=fresh_texts(hidden, mask, parts, rows.texts),
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
        )

    def _encode(self, texts: Int64s) -> Tensor:
        hidden, mask = self.hidden_states(texts)
        return self.model.language(hidden.to(self.device), mask.to(self.device))
