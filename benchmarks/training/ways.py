"""Three ways to train on the same batches of histories: ours, every occurrence, the textbook.

An *example* is one prediction that is trained: a state of a user and the target it predicts. All
three learn the same examples of a batch, and train the same layers of the same language model.

Legend: O occurrences of items, T pairs, L tokens (padded), E events, P targets, C candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from recsys.config import Recipe
from recsys.features.windows import TrainingBatch
from recsys.model.language import LanguageModel, load_language_model
from recsys.model.losses import catalogue_cross_entropy
from recsys.model.two_tower import MAX_LOG_SCALE
from recsys.preparation.prepared import Prepared
from recsys.schema import Col
from recsys.text.pretrained import locate, max_positions
from recsys.text.text_store import TextStore, pad_tokens
from recsys.training.build import build_two_tower
from recsys.training.optim import build_optimizer, warmup_cosine
from recsys.training.worker import Worker

ONCE, EVERY, TEXTBOOK = "ours", "every occurrence", "textbook"
#: Ours without the cache: every distinct text with gradient, the loss and gradient of `EVERY`.
EXACT = "ours, no cache"
#: Ours with the cache, under the loss and for the steps of `EXACT`, to compare what they learn.
ONCE_ALIKE = "ours, its loss and steps"

#: What the textbook pads every pair to.
PAIR_TOKENS = 512
#: Examples of one of its steps, each a positive and a negative pair.
PAIRED_EXAMPLES = 8


class Way(Protocol):
    """A way to train.

    Attributes:
        num_tokens: places, padding included, that went through layers of the language model, each
            counted once a layer.
    """

    num_tokens: int

    def steps(self, batch: TrainingBatch, num_steps: int) -> Iterator[int]:
        """Train on a batch; yields the number of examples after each step of the optimiser.

        Args:
            batch: what to learn.
            num_steps: of the whole run, for the schedule.
        """


class Once(Worker):
    """The product's worker as it is: it only counts what it encodes."""

    num_tokens = 0

    def steps(self, batch: TrainingBatch, num_steps: int) -> Iterator[int]:
        """See `Way`."""
        self.train_step(batch, num_steps)
        yield len(batch.target_items)

    def age(self) -> None:
        """Let the cache be as old as in the midst of a long run, where some of it expires always.

        A run's first steps would be too fast: at the start every vector is new.
        """
        most = self.recipe.train.max_vector_age
        rows = self.rng(7).permutation(self.store.num_texts)
        for age, part in enumerate(np.array_split(rows, most)):
            self.cache.put(part, self.cache.vectors[torch.from_numpy(part)], self.step - age)

    def hidden_states(self, texts: np.ndarray) -> tuple[Tensor, Tensor]:
        """See `Worker.hidden_states`."""
        hidden, mask = super().hidden_states(texts)
        self.num_tokens += mask.numel() * len(self.model.language.trained_layers)
        return hidden, mask


class EveryOccurrence(Once):
    """The same model and loss, the text of every event, target and negative encoded anew.

    Nothing is shared: no distinct texts, no states of frozen layers, no vectors of earlier steps.
    """

    def train_step(self, batch: TrainingBatch, num_steps: int) -> float:
        """See `Worker.train_step`."""
        train, windows = self.recipe.train, batch.windows
        sample, log_expected = self.negatives.sample(train.num_negatives, self.rng(4, self.step))
        real = windows.moments >= 0
        events, targets = windows.item_rows[real].numpy(), batch.target_items.numpy()
        items = np.concatenate([events, targets, sample])
        self.model.train()
        self.model.language.eval()
        vectors = self.model.items(
            self._encode_tokens(items), self.item_rows[torch.from_numpy(items)]
        )
        of_events, of_targets, of_sample = vectors.split([len(events), len(targets), len(sample)])
        padded = vectors.new_zeros(*real.shape, vectors.shape[1])
        padded[real] = of_events
        states = self.model.users(padded, windows)
        prior = self.model.popularity * torch.from_numpy(self.log_share)
        candidates = torch.from_numpy(sample)
        loss = catalogue_cross_entropy(
            states,
            of_targets,
            of_sample,
            target_states_P=batch.target_states,
            target_items_P=batch.target_items,
            candidate_items_C=candidates,
            log_expected_C=torch.from_numpy(log_expected),
            prior_P=prior[batch.target_items],
            prior_C=prior[candidates],
            weights_P=batch.target_weights,
            scale=self.model.log_scale.clamp(max=MAX_LOG_SCALE).exp(),
        )
        self.descend(loss, num_steps)
        self.step += 1
        return float(loss.detach())

    def _encode_tokens(self, items: np.ndarray) -> Tensor:
        """[O, H] text vectors of items, from their tokens, through all layers."""
        texts = self.prepared.catalogue.texts[Col.tokens].gather(self.text_rows[items])
        tokens, mask = pad_tokens([ids.to_numpy() for ids in texts])
        language = self.model.language
        self.num_tokens += mask.numel() * num_layers(language)
        return language(language.lower(tokens, mask), mask)


class CrossEncoder(nn.Module):
    """One pass a pair: history and candidate in one text, a score from its first token."""

    def __init__(self, language: LanguageModel) -> None:
        super().__init__()
        self.language = language
        self.score = nn.Linear(language.dim, 1)

    def forward(self, tokens_TL: Tensor, mask_TL: Tensor) -> Tensor:
        """[T] score of each pair: log odds that the user takes the item."""
        hidden = self.language.lower(tokens_TL, mask_TL)
        return self.score(self.language.states(hidden, mask_TL)[:, 0]).squeeze(-1)


class Textbook:
    """A BERT-like cross-encoder over (user, item) pairs, padded to 512 tokens.

    Every example is a pair with its target and a pair with an item sampled uniformly from the
    catalogue, under binary cross-entropy.
    """

    def __init__(self, recipe: Recipe, prepared: Prepared) -> None:
        torch.manual_seed(recipe.seed)
        model, train = recipe.model, recipe.train
        language = load_language_model(model)
        self.model = CrossEncoder(language)
        self.seed, self.train = recipe.seed, train
        self.width = min(PAIR_TOKENS, max_positions(locate(model.language_model)))
        tokens = prepared.catalogue.texts[Col.tokens].to_list()
        #: Of each item, without the two that enclose its text.
        self.tokens = [tokens[row][1:-1] for row in prepared.catalogue.text_rows]
        self.first, self.separator = tokens[0][0], tokens[0][-1]
        self.optimizer = build_optimizer(self.model, train, language.parameters())
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.step = self.num_tokens = 0

    def steps(self, batch: TrainingBatch, num_steps: int) -> Iterator[int]:
        """See `Way`."""
        histories = histories_of(batch)
        rng = np.random.default_rng([self.seed, 8, self.step])
        order = rng.permutation(len(histories))
        for low in range(0, len(order), PAIRED_EXAMPLES):
            picked = order[low : low + PAIRED_EXAMPLES]
            pairs, labels = [], []
            for example in picked:
                target = int(batch.target_items[example])
                for item in (target, _another(target, len(self.tokens), rng)):
                    pairs.append(self.pair(histories[example], item))
                    labels.append(float(item == target))
            self._learn(pairs, torch.tensor(labels), num_steps)
            yield len(picked)

    def pair(self, history: np.ndarray, item: int) -> np.ndarray:
        """Tokens of a history and a candidate; what is too old for the width is left out."""
        candidate = self.tokens[item][: self.width - 3]
        past = [token for row in history for token in self.tokens[row]]
        room = self.width - 3 - len(candidate)
        past = past[max(0, len(past) - room) :] if room else []
        whole = [self.first, *past, self.separator, *candidate, self.separator]
        return np.array(whole, dtype=np.int32)

    @torch.no_grad()
    def scores(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Score of each candidate; padded to the longest alone, which changes no score."""
        self.model.eval()
        tokens, mask = pad_tokens([self.pair(history, int(item)) for item in items])
        return self.model(tokens, mask).numpy()

    def _learn(self, pairs: list[np.ndarray], labels: Tensor, num_steps: int) -> None:
        tokens, mask = pad_tokens(pairs)
        more = (0, self.width - tokens.shape[1])
        tokens, mask = nn.functional.pad(tokens, more), nn.functional.pad(mask, more)
        self.model.eval()  # no dropout in the language model, like the other ways
        self.num_tokens += mask.numel() * num_layers(self.model.language)
        loss = nn.functional.binary_cross_entropy_with_logits(self.model(tokens, mask), labels)
        factor = warmup_cosine(self.step, num_steps, self.train.warmup_fraction)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.train.clip_norm)
        self.optimizer.step()
        self.step += 1


def fresh(kind: type[Once], recipe: Recipe, prepared: Prepared, store: TextStore) -> Once:
    """An untrained worker, as `recsys train` would start it."""
    model, item_rows = build_two_tower(recipe, prepared)
    model.items.start_from(store.vectors, recipe.model.whitening)
    return kind(recipe, prepared, store, model, item_rows)


def histories_of(batch: TrainingBatch) -> list[np.ndarray]:
    """The items that each example's state has seen, oldest first."""
    windows = batch.windows
    state_of_event, item_rows = windows.state_of_event.numpy(), windows.item_rows.numpy()
    # States of a window follow each other, and every window's begin above the one before.
    last = state_of_event.max(axis=1)
    found = []
    for state in batch.target_states.numpy():
        if not state:
            found.append(np.zeros(0, dtype=np.int64))
            continue
        row = int(np.searchsorted(last, state))
        seen = (state_of_event[row] > 0) & (state_of_event[row] <= state)
        found.append(item_rows[row][seen])
    return found


def num_layers(language: LanguageModel) -> int:
    """Layers of a language model, frozen or trained."""
    return len(language.frozen_layers) + len(language.trained_layers)


def say(line: str) -> None:
    """A line of progress."""
    print(f"    {line}", flush=True)


def _another(item: int, num_items: int, rng: np.random.Generator) -> int:
    """An item sampled uniformly from the others."""
    return (item + 1 + int(rng.integers(max(1, num_items - 1)))) % num_items
