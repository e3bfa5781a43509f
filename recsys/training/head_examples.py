"""Questions -> examples that the scoring head is fitted on, in every epoch anew.

Each question's softmax is estimated: its pairs are thinned to about `HEAD_PAIRS` irrelevant ones
and all relevant ones, and the rest of the catalogue is stood for by N sampled items.

Legend: Q questions, K (question, item) pairs, R relevant items, N sampled items, I items, U days
that have a question, F pair features, G item features, D width of the vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.arrays import Bools, Float32s, Int64s
from recsys.data.time_split import Questions
from recsys.features.candidates import Candidates, find_candidates
from recsys.features.side_features import usual_price
from recsys.model.ranking_head import LEFT_OUT, OF_OWN, HeadExamples, is_own, pair_inputs
from recsys.ranking.scorer import Scorer

#: Irrelevant pairs of a question that the head is fitted on, about.
HEAD_PAIRS = 128
#: Whole histories are copied out for so many questions at a time.
QUESTIONS_AT_ONCE = 256


@dataclass(frozen=True)
class HeadQuestions:
    """Questions that the head is fitted on, with all that no weight changes: epochs share it.

    Attributes:
        questions: Q of them; none is fine.
        sample: [N] items of the denominator.
        candidates: the K pairs that were kept.
        own_first: [K] an order of the pairs with the users' own items first.
        item_features: [K, G] of the pairs, as of each question's moment.
        relevant: [K].
        log_kept: [K] log of the probability that the pair was kept.
        usual_price: [Q].
        pos_query, pos_item: [R'] relevant items that are in no pair.
        pos_item_features: [R', G].
        sample_item_features: [U, N, G] as of each day that has a question.
        day: [Q] place of each question's day among the U.
        sample_offset: [Q, N], see `HeadExamples`.
    """

    questions: Questions
    sample: Int64s
    candidates: Candidates
    own_first: Int64s
    item_features: Float32s
    relevant: Bools
    log_kept: Float32s
    usual_price: Float32s
    pos_query: Int64s
    pos_item: Int64s
    pos_item_features: Float32s
    sample_item_features: Float32s
    day: Int64s
    sample_offset: Float32s

    @staticmethod
    def of(
        scorer: Scorer,
        questions: Questions,
        sample: Int64s,
        log_expected: Float32s,
        rng: np.random.Generator,
    ) -> HeadQuestions:
        """Find and thin the candidates of some questions.

        Args:
            scorer: as of the questions' window; its relations and item features are read.
            questions: Q of them; none is fine.
            sample: [N] items of the denominator.
            log_expected: [N] log of each one's expected number of draws.
            rng: thins the irrelevant pairs.
        """
        relevant_query = np.repeat(np.arange(len(questions)), np.diff(questions.relevant_offsets))
        relevant_key = relevant_query * scorer.num_items + questions.relevant
        parts = [
            _read(scorer, part, number * QUESTIONS_AT_ONCE, relevant_key, sample, rng)
            for number, part in enumerate(list(questions.batches(QUESTIONS_AT_ONCE)) or [questions])
        ]
        candidates = Candidates.joined([part.candidates for part in parts])
        query, item_rows = candidates.query, candidates.item_rows
        own = is_own(torch.from_numpy(candidates.features)).numpy()
        relevant = np.concatenate([part.relevant for part in parts])
        in_pairs = (query * scorer.num_items + item_rows)[relevant]
        outside = ~_is_in(relevant_key, in_pairs)
        pos_query = relevant_query[outside]
        pos_item = questions.relevant[outside].astype(np.int64)
        sample_item_features, day = _features_by_day(scorer, questions.now, sample)
        counted = np.concatenate([part.counted for part in parts])
        return HeadQuestions(
            questions=questions,
            sample=sample,
            candidates=candidates,
            own_first=np.argsort(~own, kind="stable"),
            item_features=scorer.features_of(questions.now[query], item_rows),
            relevant=relevant,
            log_kept=np.concatenate([part.log_kept for part in parts]),
            usual_price=np.concatenate([part.usual_price for part in parts]),
            pos_query=pos_query,
            pos_item=pos_item,
            pos_item_features=scorer.features_of(questions.now[pos_query], pos_item),
            sample_item_features=sample_item_features,
            day=day,
            sample_offset=np.where(counted, np.float32(LEFT_OUT), -log_expected),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that is computed, by name; `from_arrays` makes the same of it."""
        return self.candidates.arrays() | {name: getattr(self, name) for name in _COMPUTED}

    @staticmethod
    def from_arrays(
        questions: Questions, sample: Int64s, arrays: Mapping[str, NDArray[Any]]
    ) -> HeadQuestions:
        """What `arrays` was called on, with its questions and its sample."""
        candidates = Candidates.from_arrays(len(questions), arrays)
        return HeadQuestions(
            questions, sample, candidates, **{name: arrays[name] for name in _COMPUTED}
        )

    def examples(self, scorer: Scorer) -> HeadExamples:
        """Everything that the head's loss reads and that its own weights do not change.

        Args:
            scorer: as of the questions' window, with the encoders as they are.
        """
        states = self._states(scorer)
        order, prices = self.own_first, scorer.standard_price
        features = self.candidates.pairs(scorer.vectors.numpy()).features[order]
        query, item_rows = self.candidates.query[order], self.candidates.item_rows[order]
        cosine = _cosine(states, scorer.vectors, query, item_rows)
        price = torch.from_numpy(self.usual_price[query] * prices[item_rows])
        item_features = torch.from_numpy(self.item_features[order])
        inputs = pair_inputs(torch.from_numpy(features), item_features, cosine, price)
        num_own = int(is_own(inputs).sum())
        return HeadExamples(
            num_queries=len(self.questions),
            own_inputs=inputs[:num_own],
            other_inputs=inputs[num_own:, len(OF_OWN) :].contiguous(),
            pair_query=torch.from_numpy(query),
            pair_cosine=cosine,
            pair_price=price,
            pair_relevant=torch.from_numpy(self.relevant[order]),
            pair_item_features=item_features,
            pair_log_kept=torch.from_numpy(self.log_kept[order]),
            pos_query=torch.from_numpy(self.pos_query),
            pos_cosine=_cosine(states, scorer.vectors, self.pos_query, self.pos_item),
            pos_price=torch.from_numpy(self.usual_price[self.pos_query] * prices[self.pos_item]),
            pos_item_features=torch.from_numpy(self.pos_item_features),
            sample_cosine=states @ scorer.vectors[torch.from_numpy(self.sample)].T,
            sample_price=torch.from_numpy(self.usual_price[:, None] * prices[self.sample]),
            sample_item_features=torch.from_numpy(self.sample_item_features),
            day=torch.from_numpy(self.day),
            sample_offset=torch.from_numpy(self.sample_offset),
        )

    def _states(self, scorer: Scorer) -> Tensor:
        """[Q, D] user states of the questions."""
        batches = list(self.questions.batches(QUESTIONS_AT_ONCE)) or [self.questions]
        return torch.cat([scorer.states(part.histories) for part in batches])


#: Fields of `HeadQuestions` that are arrays of its own.
_COMPUTED = (
    "own_first", "item_features", "relevant", "log_kept", "usual_price", "pos_query", "pos_item",
    "pos_item_features", "sample_item_features", "day", "sample_offset",
)  # fmt: skip


@dataclass(frozen=True)
class _Part:
    """What some consecutive questions give.

    Attributes:
        candidates: [K] those kept.
        relevant, log_kept: [K].
        usual_price: [Q].
        counted: [Q, N] whether a sampled item is a candidate, kept or not, or relevant.
    """

    candidates: Candidates
    relevant: Bools
    log_kept: Float32s
    usual_price: Float32s
    counted: Bools


def _read(
    scorer: Scorer,
    part: Questions,
    first: int,
    relevant_key: Int64s,
    sample: Int64s,
    rng: np.random.Generator,
) -> _Part:
    """Find some questions' candidates and thin them; `first` is the first one's number."""
    histories = part.histories
    found = find_candidates(histories, scorer.relations, scorer.target_codes)
    key = (found.query + first) * scorer.num_items + found.item_rows
    relevant = _is_in(key, relevant_key)
    per_query = np.bincount(found.query, minlength=len(part))
    keep = np.minimum(1, HEAD_PAIRS / np.maximum(per_query, 1))[found.query]
    keep[relevant] = 1
    kept = rng.random(len(key)) < keep
    numbers = np.arange(first, first + len(part))
    sample_key = numbers[:, None] * scorer.num_items + sample[None, :]
    return _Part(
        candidates=found.take(kept),
        relevant=relevant[kept],
        log_kept=np.log(keep[kept]).astype(np.float32),
        usual_price=usual_price(histories, scorer.standard_price),
        counted=_is_in(sample_key, np.union1d(key, relevant_key)),
    )


def _cosine(states: Tensor, vectors: Any, query: Int64s, rows: Int64s) -> Tensor:
    """[K] of user state and item vector."""
    parts = []
    for low in range(0, len(query), 65_536):
        q, r = query[low : low + 65_536], rows[low : low + 65_536]
        parts.append((states[torch.from_numpy(q)] * vectors[torch.from_numpy(r)]).sum(-1))
    return torch.cat(parts) if parts else torch.zeros(0)


def _features_by_day(scorer: Scorer, now: Int64s, sample: Int64s) -> tuple[Float32s, Int64s]:
    """[U, N, G] features of the sampled items as of each day, and the place of each one's day [Q].

    A worker whose shards hold no question has no day either: [0, N, G].
    """
    days, day = scorer.days_of(now)
    features = np.empty((len(days), len(sample), scorer.item_features.shape[1]), dtype=np.float32)
    for place, each in enumerate(days):
        features[place] = scorer.features_on(each)[sample]
    return features, day


def _is_in(values: Int64s, rising: Int64s) -> Bools:
    """Whether each value stands in a rising array."""
    if not len(rising):
        return np.zeros(values.shape, dtype=bool)
    found: Any = rising[np.minimum(np.searchsorted(rising, values), len(rising) - 1)] == values
    return found
