"""One worker's training, without Ray: steps over any iterator of histories, head fit, validation.

Legend: U users, N distinct items of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recsys.config import Recipe, target_codes
from recsys.data.histories import Questions, UserEvents
from recsys.errors import RecipeError
from recsys.evaluation.metrics.ranking import ndcg_at_k, ranks_of
from recsys.features.candidates import make_pairs
from recsys.features.item_fields import ItemFields
from recsys.features.side_features import (
    FeaturesOverTime,
    PriceScale,
    item_features,
    usual_price,
)
from recsys.features.windows import TrainingBatch, event_weights, training_batch
from recsys.model.batch import Batch, FreshTexts
from recsys.model.exchange import shared, shares
from recsys.model.item_encoder import id_rows_of
from recsys.model.language import load_language_model
from recsys.model.ranking_head import (
    LEFT_OUT,
    OF_OWN,
    HeadExamples,
    Reduce,
    ScoringHead,
    fit_head,
    is_own,
    seen_of_pairs,
)  # fmt: skip
from recsys.model.two_tower import TwoTower
from recsys.model.vector_cache import VectorCache
from recsys.preparation.prepared import Prepared
from recsys.ranking.scorer import Scorer
from recsys.schema import EVENT_CODE
from recsys.text.text_store import TextStore
from recsys.training.optim import build_optimizer, warmup_cosine

#: Negatives are drawn in proportion to popularity (plus one event each) to this power, word2vec's.
SAMPLE_POWER = 0.75
HEAD_SAMPLE = 500
#: Irrelevant pairs of a question that the head is fitted on, about.
HEAD_PAIRS = 128
TEXTS_AT_ONCE = 256
#: Whole histories are copied out for so many questions at a time.
QUESTIONS_AT_ONCE = 256


def build_two_tower(
    recipe: Recipe, prepared: Prepared, until: str = "head"
) -> tuple[TwoTower, Tensor]:
    """A fresh model for prepared data, and the rows of each item's id and fields [I, 1 + F].

    Ids are those of the items that are known at the cut `until`.
    """
    torch.manual_seed(recipe.seed)
    model, items = recipe.model, prepared.catalogue.items
    language = load_language_model(model)
    ids = id_rows_of(prepared.stats(until).num_events, model.min_events_for_id)
    fields = ItemFields.of(items, model.item_fields)
    rows = np.column_stack([ids, fields.rows(items)])
    ranker = TwoTower(model, language, int(ids.max(initial=-1)) + 1, fields.num_rows)
    return ranker, torch.from_numpy(rows)


def features_over_time(
    recipe: Recipe, prepared: Prepared, standard_price: np.ndarray
) -> FeaturesOverTime | None:
    """Item features as of each question's day; None if the recipe counts at the cuts alone."""
    every_days = recipe.data.count_every_days
    if every_days is None:
        return None
    return FeaturesOverTime(prepared.daily_counts(), standard_price, every_days)


@dataclass
class Worker:
    """The state of one training worker.

    Args:
        recipe: the recipe.
        prepared: the prepared data.
        store: hidden states of the texts.
        ranker, item_rows: see `build_two_tower`.
        rank, world: number of this worker, and of all.
        device: where the model lives.
        wrapped: the module to call for the loss; DDP around `ranker`, or `ranker` itself.
        until: the cut that the encoders learn until; the head is fitted on the window that begins
            there.
    """

    recipe: Recipe
    prepared: Prepared
    store: TextStore
    ranker: TwoTower
    item_rows: Tensor
    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    wrapped: nn.Module | None = None
    until: str = "head"
    step: int = 0

    def __post_init__(self) -> None:
        train, catalogue = self.recipe.train, self.prepared.catalogue
        self.text_rows = catalogue.text_rows.astype(np.int64)
        self.ranker.language.in_bfloat16 = train.precision == "bfloat16"
        self.cache = VectorCache(self.store.vectors, train.max_vector_age)
        self.codes = target_codes(self.recipe)
        self.weights = event_weights(self.codes, EVENT_CODE, train.event_weights)
        counts = self.prepared.stats(self.until).num_targets
        self.share = _share(counts, SAMPLE_POWER)
        self.log_share = np.log(_share(counts, 1.0)).astype(np.float32)
        self.cumulative = np.cumsum(self.share)
        torch.manual_seed(self.recipe.seed)
        self.head = ScoringHead(self.recipe.model.temperature)
        self.standard_price = PriceScale.fit(catalogue.prices).standard(catalogue.prices)
        self.over_time = features_over_time(self.recipe, self.prepared, self.standard_price)
        self.cut_us = int(self.prepared.summary["cuts_us"][self.until])
        # Updates that start from nothing need the full rate; weights that know much do not.
        is_lora = self.recipe.model.tuning == "lora"
        slow = [] if is_lora else list(self.ranker.language.parameters())
        self.optimizer = build_optimizer(self.ranker, train, slow)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def rng(self, *key: int) -> np.random.Generator:
        """Random numbers that depend on seed, rank and a key alone: the same after a resume."""
        return np.random.default_rng([self.recipe.seed, self.rank, *key])

    def batch(self, users: UserEvents) -> TrainingBatch | None:
        """The next step's batch of some users' histories; None if it holds nothing to predict."""
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
        model, train = self.recipe.model, self.recipe.train
        rng = self.rng(4, self.step)
        sample, log_expected = self._draw(train.num_negatives, rng)
        real = batch.windows.moments >= 0
        # Targets first: they are the texts most worth a gradient.
        items, place = _distinct(
            batch.target_items.numpy(), batch.windows.item_rows[real].numpy(), sample
        )
        texts, text_of_item = _distinct(self.text_rows[items])
        window_items = torch.zeros_like(batch.windows.item_rows)
        window_items[real] = torch.from_numpy(place[1])
        self.ranker.train()
        # No dropout in the language model: the cache stands for what it would compute.
        self.ranker.language.eval()
        budget = 0 if model.tuning == "frozen" else train.fresh_texts_per_step
        fresh, stale = self.cache.split(texts, budget, self.step, rng)
        if budget == 0:
            stale = stale[:0]
        self.cache.refresh(stale, self.step, self._encode)
        parts = shares(fresh) if len(fresh) and shared(self.world) else [fresh]
        hidden, mask = self._hidden(parts[self.rank if len(parts) > 1 else 0])
        fresh = np.concatenate(parts)
        # Of what the others encode, this batch takes what it has in it; the cache takes all.
        used = _first(fresh) & np.isin(fresh, texts)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * warmup_cosine(self.step, num_steps, train.warmup_fraction)
        step_batch = Batch(
            fresh=FreshTexts(
                hidden_FLH=hidden,
                mask_FL=mask,
                sizes=[len(part) for part in parts],
                used_G=torch.from_numpy(np.flatnonzero(used)),
                at_G=torch.from_numpy(_places(texts, fresh[used])),
            ),
            cached_TH=self.cache.vectors[torch.from_numpy(texts)],
            text_of_item_N=torch.from_numpy(text_of_item[0]),
            item_rows_NR=self.item_rows[torch.from_numpy(items)],
            windows=batch.windows,
            window_items_BE=window_items,
            target_states_P=batch.target_states,
            target_items_P=torch.from_numpy(place[0]),
            target_weights_P=batch.target_weights,
            candidates_C=torch.from_numpy(place[2]),
            log_expected_C=torch.from_numpy(log_expected),
            log_share_N=torch.from_numpy(self.log_share[items]),
        )
        loss, vectors = (self.wrapped or self.ranker)(step_batch.to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.ranker.parameters(), train.clip_norm)
        self.optimizer.step()
        if len(fresh):
            self.cache.put(fresh, vectors, self.step)
        self.step += 1
        value = float(loss.detach())
        if not np.isfinite(value):
            raise RecipeError(
                f"training has diverged: the loss of step {self.step} is {value}",
                field="train.learning_rate", value=train.learning_rate,
                fix="use a lower one, or a lower train.clip_norm",
            )  # fmt: skip
        return value

    def train_epoch(
        self,
        batches: Iterable[UserEvents],
        num_steps: int,
        agree: Callable[[bool], bool] = lambda more: more,
    ) -> float:
        """Steps over an epoch's batches; returns the mean loss.

        Args:
            batches: the users of each step.
            num_steps: steps of the whole run, for the schedule.
            agree: whether all workers have another batch: one that stepped alone would wait for
                ever.
        """
        # Dropout, too, is the same after a resume.
        torch.manual_seed(int(self.rng(5, self.step).integers(2**63)))
        losses: list[float] = []
        iterator = iter(batches)
        while True:
            # A batch of users who wanted nothing is passed over before the workers agree: a step
            # that one of them left out would leave the others waiting for its gradient.
            batch = next((b for b in map(self.batch, iterator) if b is not None), None)
            if not agree(batch is not None):
                break
            assert batch is not None
            losses.append(self.train_step(batch, num_steps))
        return float(np.mean(losses)) if losses else float("nan")

    def scorer(self, as_of: str) -> Scorer:
        """Score with the model as it is, all else as of a cut."""
        self.ranker.language.eval()
        stale = self.cache.stale(self.step)
        for low in range(0, len(stale), TEXTS_AT_ONCE):
            self.cache.refresh(stale[low : low + TEXTS_AT_ONCE], self.step, self._encode)
        self.ranker.to("cpu")
        vectors = self.ranker.item_vectors(
            self.cache.vectors, self.prepared.catalogue.text_rows, self.item_rows
        )
        features = item_features(self.prepared.stats(as_of), self.standard_price)
        relations = self.prepared.relations(as_of, self.store.content_similarity)
        return Scorer.build(
            self.ranker.users, self.head, vectors, features, self.standard_price, relations,
            self.codes, self.recipe.model.max_history, self.over_time,
        )  # fmt: skip

    def head_examples(self, questions: Questions) -> HeadExamples:
        """Share of the head's questions that falls to this worker."""
        scorer = self.scorer(self.until)
        rng = np.random.default_rng([self.recipe.seed, 2])  # the same sample for every worker
        sample, log_expected = self._draw(HEAD_SAMPLE, rng)
        return head_examples(scorer, questions, sample, log_expected, self.rng(6))

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
        order = tie_order(scorer.num_items, self.recipe.seed)
        total, count = 0.0, 0
        for part in questions.batches(64):
            ranks = ranks_of(
                scorer.scores(part.histories), part.relevant, part.relevant_offsets, order
            )
            total += float(ndcg_at_k(ranks, part.relevant_offsets, 10).sum())
            count += len(part)
        assert count == len(questions)
        return total, count

    def _draw(self, size: int, rng: np.random.Generator) -> tuple[Any, Any]:
        """Item rows drawn with replacement, and the log of each one's expected number of draws."""
        if size >= len(self.share):
            return np.arange(len(self.share)), np.zeros(len(self.share), dtype=np.float32)
        rows = np.searchsorted(
            self.cumulative, rng.random(size) * self.cumulative[-1], side="right"
        )
        rows = np.minimum(rows, len(self.share) - 1)
        return rows, np.log(size * self.share[rows]).astype(np.float32)

    def _hidden(self, texts: np.ndarray) -> tuple[Tensor, Tensor]:
        return self.store.batch(texts)

    def _encode(self, texts: np.ndarray) -> Tensor:
        hidden, mask = self._hidden(texts)
        return self.ranker.language(hidden.to(self.device), mask.to(self.device))


def head_examples(
    scorer: Scorer,
    questions: Questions,
    sample: np.ndarray,
    log_expected: np.ndarray,
    rng: np.random.Generator,
) -> HeadExamples:
    """All that the head's fit needs of some questions and that its weights do not change.

    Args:
        scorer: as of the questions' window.
        questions: Q of them.
        sample: [N] items of the denominator.
        log_expected: [N] log of each one's expected number of draws.
        rng: of a question's irrelevant pairs about `HEAD_PAIRS` are drawn.
    """
    num_items = scorer.num_items
    relevant_query = np.repeat(np.arange(len(questions)), np.diff(questions.relevant_offsets))
    relevant_key = relevant_query * num_items + questions.relevant
    parts, left_out = [], []
    for number, part in enumerate(list(questions.batches(QUESTIONS_AT_ONCE)) or [questions]):
        histories, first = part.histories, number * QUESTIONS_AT_ONCE
        pairs = make_pairs(histories, scorer.relations, scorer.vectors.numpy(), scorer.target_codes)
        key = (pairs.query + first) * num_items + pairs.item_rows
        relevant = _is_in(key, relevant_key)
        per_query = np.bincount(pairs.query, minlength=len(part))
        chance = np.minimum(1, HEAD_PAIRS / np.maximum(per_query, 1))[pairs.query]
        chance[relevant] = 1
        kept = rng.random(len(key)) < chance
        asked = np.arange(first, first + len(part))
        left_out.append(
            _is_in(asked[:, None] * num_items + sample[None, :], np.union1d(key, relevant_key))
        )
        parts.append(
            (
                scorer.states(histories).numpy(),
                usual_price(histories, scorer.standard_price),
                pairs.query[kept] + first,
                pairs.item_rows[kept],
                pairs.features[kept],
                scorer.features_of(part.now[pairs.query[kept]], pairs.item_rows[kept]),
                relevant[kept],
                np.log(chance[kept]).astype(np.float32),
                key[relevant],
            )
        )
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    vectors, price, pair_query, pair_rows, features, of_items, is_relevant, log_kept, found = (
        columns
    )
    own = is_own(torch.from_numpy(features)).numpy()
    own_first = np.argsort(~own, kind="stable")
    pair_query, pair_rows, features, of_items, is_relevant, log_kept = (
        column[own_first]
        for column in (pair_query, pair_rows, features, of_items, is_relevant, log_kept)
    )
    states = torch.from_numpy(vectors)
    outside = ~_is_in(relevant_key, found)
    pos_query, pos_item = relevant_query[outside], questions.relevant[outside].astype(np.int64)

    def cosine(query: np.ndarray, rows: np.ndarray) -> Tensor:
        parts = []
        for low in range(0, len(query), 65_536):
            q, r = query[low : low + 65_536], rows[low : low + 65_536]
            parts.append(
                (states[torch.from_numpy(q)] * scorer.vectors[torch.from_numpy(r)]).sum(-1)
            )
        return torch.cat(parts) if parts else torch.zeros(0)

    def price_of(query: np.ndarray, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(price[query] * scorer.standard_price[rows])

    days, day = scorer.days_of(questions.now)
    # A worker whose shards hold no question has no day either, and goes along with none.
    of_sample = np.empty((len(days), len(sample), scorer.item_features.shape[1]), dtype=np.float32)
    for place, each in enumerate(days):
        of_sample[place] = scorer.features_on(each)[sample]
    pair_cosine, pair_price = cosine(pair_query, pair_rows), price_of(pair_query, pair_rows)
    pair_item_features = torch.from_numpy(of_items)
    seen = seen_of_pairs(torch.from_numpy(features), pair_item_features, pair_cosine, pair_price)
    num_own = int(own.sum())
    offset = torch.from_numpy(-log_expected).expand(len(questions), len(sample))
    return HeadExamples(
        num_queries=len(questions),
        own_seen=seen[:num_own],
        other_seen=seen[num_own:, len(OF_OWN) :].contiguous(),
        pair_query=torch.from_numpy(pair_query),
        pair_cosine=pair_cosine,
        pair_price=pair_price,
        pair_relevant=torch.from_numpy(is_relevant),
        pair_item_features=pair_item_features,
        pair_log_kept=torch.from_numpy(log_kept),
        pos_query=torch.from_numpy(pos_query),
        pos_cosine=cosine(pos_query, pos_item),
        pos_price=price_of(pos_query, pos_item),
        pos_item_features=torch.from_numpy(scorer.features_of(questions.now[pos_query], pos_item)),
        sample_cosine=states @ scorer.vectors[torch.from_numpy(sample)].T,
        sample_price=torch.from_numpy(price[:, None] * scorer.standard_price[sample]),
        sample_item_features=torch.from_numpy(of_sample),
        day=torch.from_numpy(day),
        sample_offset=offset.masked_fill(torch.from_numpy(np.concatenate(left_out)), LEFT_OUT),
    )


def _is_in(values: np.ndarray, rising: np.ndarray) -> np.ndarray:
    """Whether each value stands in a rising array."""
    if not len(rising):
        return np.zeros(values.shape, dtype=bool)
    return rising[np.minimum(np.searchsorted(rising, values), len(rising) - 1)] == values


def tie_order(num_items: int, seed: int) -> np.ndarray:
    """The order of equal scores, drawn once: no model gains by the catalogue's order."""
    return np.random.default_rng([seed, 3]).permutation(num_items)


def _share(counts: np.ndarray, power: float) -> np.ndarray:
    """Each item's share of all events, every item credited with one event more, to some power."""
    smoothed = (counts.astype(np.float64) + 1) ** power
    return smoothed / smoothed.sum()


def _distinct(*parts: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Distinct values in order of first appearance, and each part as places among them."""
    joined = np.concatenate(parts)
    values, first, inverse = np.unique(joined, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    places = position[inverse]
    ends = np.cumsum([len(part) for part in parts])[:-1]
    return values[order], np.split(places, ends)


def _places(rows: np.ndarray, picked: np.ndarray) -> np.ndarray:
    """Where each picked row stands in `rows` (distinct)."""
    order = np.argsort(rows)
    return order[np.searchsorted(rows, picked, sorter=order)].astype(np.int64)


def _first(rows: np.ndarray) -> np.ndarray:
    """Whether each row is the first of its kind."""
    found = np.zeros(len(rows), dtype=bool)
    found[np.unique(rows, return_index=True)[1]] = True
    return found
