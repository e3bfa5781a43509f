"""Questions -> examples that the scoring head is fitted on.

Each question's softmax is estimated: its pairs are thinned to about `HEAD_PAIRS` irrelevant ones
and all relevant ones, and the rest of the catalogue is stood for by N sampled items.

Legend: Q questions, K (question, item) pairs, R relevant items, N sampled items, I items, U days
that have a question, F pair features, G item features, D width of the vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.arrays import Bools, Float32s, Int64s
from recsys.data.time_split import Questions
from recsys.features.candidates import make_pairs
from recsys.features.side_features import usual_price
from recsys.model.ranking_head import LEFT_OUT, OF_OWN, HeadExamples, is_own, pair_inputs
from recsys.ranking.scorer import Scorer

#: Irrelevant pairs of a question that the head is fitted on, about.
HEAD_PAIRS = 128
#: Whole histories are copied out for so many questions at a time.
QUESTIONS_AT_ONCE = 256


def head_examples(
    scorer: Scorer,
    questions: Questions,
    sample: Int64s,
    log_expected: Float32s,
    rng: np.random.Generator,
) -> HeadExamples:
    """Everything that the head's loss reads of some questions and that its weights do not change.

    Args:
        scorer: as of the questions' window.
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
    terms = _Terms(
        scorer,
        torch.from_numpy(np.concatenate([part.states for part in parts])),
        np.concatenate([part.usual_price for part in parts]),
    )
    pairs, num_own = _own_first(_Pairs.joined([part.pairs for part in parts]))
    pair_cosine = terms.cosine(pairs.query, pairs.item_rows)
    pair_price = terms.price(pairs.query, pairs.item_rows)
    pair_item_features = torch.from_numpy(pairs.item_features)
    inputs = pair_inputs(
        torch.from_numpy(pairs.features), pair_item_features, pair_cosine, pair_price
    )
    outside = ~_is_in(relevant_key, np.concatenate([part.relevant_pairs for part in parts]))
    pos_query, pos_item = relevant_query[outside], questions.relevant[outside].astype(np.int64)
    sample_item_features, day = _features_by_day(scorer, questions.now, sample)
    counted = torch.from_numpy(np.concatenate([part.counted for part in parts]))
    offset = torch.from_numpy(-log_expected).expand(len(questions), len(sample))
    return HeadExamples(
        num_queries=len(questions),
        own_inputs=inputs[:num_own],
        other_inputs=inputs[num_own:, len(OF_OWN) :].contiguous(),
        pair_query=torch.from_numpy(pairs.query),
        pair_cosine=pair_cosine,
        pair_price=pair_price,
        pair_relevant=torch.from_numpy(pairs.relevant),
        pair_item_features=pair_item_features,
        pair_log_kept=torch.from_numpy(pairs.log_kept),
        pos_query=torch.from_numpy(pos_query),
        pos_cosine=terms.cosine(pos_query, pos_item),
        pos_price=terms.price(pos_query, pos_item),
        pos_item_features=torch.from_numpy(scorer.features_of(questions.now[pos_query], pos_item)),
        sample_cosine=terms.states @ scorer.vectors[torch.from_numpy(sample)].T,
        sample_price=torch.from_numpy(terms.usual_price[:, None] * scorer.standard_price[sample]),
        sample_item_features=sample_item_features,
        day=day,
        sample_offset=offset.masked_fill(counted, LEFT_OUT),
    )


@dataclass(frozen=True)
class _Pairs:
    """The pairs that are kept, in columns.

    Attributes:
        query, item_rows: [K].
        features: [K, F].
        item_features: [K, G] as of the question's moment.
        relevant: [K].
        log_kept: [K] log of the probability that the pair was kept.
    """

    query: Int64s
    item_rows: Int64s
    features: Float32s
    item_features: Float32s
    relevant: Bools
    log_kept: Float32s

    @staticmethod
    def joined(parts: list[_Pairs]) -> _Pairs:
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return _Pairs(*(np.concatenate(column) for column in columns))

    def take(self, order: Int64s) -> _Pairs:
        return _Pairs(*(column[order] for column in vars(self).values()))


@dataclass(frozen=True)
class _Part:
    """What some consecutive questions give.

    Attributes:
        states: [Q, D] user states.
        usual_price: [Q].
        pairs: those kept; `query` counts from the first of all questions.
        relevant_pairs: rising keys (question x I + item) of the pairs with a relevant item.
        counted: [Q, N] whether a sampled item is in a pair or relevant.
    """

    states: Float32s
    usual_price: Float32s
    pairs: _Pairs
    relevant_pairs: Int64s
    counted: Bools


def _read(
    scorer: Scorer,
    part: Questions,
    first: int,
    relevant_key: Int64s,
    sample: Int64s,
    rng: np.random.Generator,
) -> _Part:
    """Encode some questions' histories and make their pairs; `first` is the first's number."""
    histories = part.histories
    pairs = make_pairs(histories, scorer.relations, scorer.vectors.numpy(), scorer.target_codes)
    key = (pairs.query + first) * scorer.num_items + pairs.item_rows
    relevant = _is_in(key, relevant_key)
    per_query = np.bincount(pairs.query, minlength=len(part))
    keep = np.minimum(1, HEAD_PAIRS / np.maximum(per_query, 1))[pairs.query]
    keep[relevant] = 1
    kept = rng.random(len(key)) < keep
    query, item_rows = pairs.query[kept], pairs.item_rows[kept]
    numbers = np.arange(first, first + len(part))
    sample_key = numbers[:, None] * scorer.num_items + sample[None, :]
    return _Part(
        states=scorer.states(histories).numpy(),
        usual_price=usual_price(histories, scorer.standard_price),
        pairs=_Pairs(
            query=query + first,
            item_rows=item_rows,
            features=pairs.features[kept],
            item_features=scorer.features_of(part.now[query], item_rows),
            relevant=relevant[kept],
            log_kept=np.log(keep[kept]).astype(np.float32),
        ),
        relevant_pairs=key[relevant],
        counted=_is_in(sample_key, np.union1d(key, relevant_key)),
    )


def _own_first(pairs: _Pairs) -> tuple[_Pairs, int]:
    """The pairs with the users' own items first, and the number of these."""
    own = is_own(torch.from_numpy(pairs.features)).numpy()
    return pairs.take(np.argsort(~own, kind="stable")), int(own.sum())


@dataclass(frozen=True)
class _Terms:
    """The terms of a score that user and item make together.

    Attributes:
        scorer: has the items' side.
        states: [Q, D].
        usual_price: [Q].
    """

    scorer: Scorer
    states: Tensor
    usual_price: Float32s

    def cosine(self, query: Int64s, rows: Int64s) -> Tensor:
        """[K] of user state and item vector."""
        parts = []
        for low in range(0, len(query), 65_536):
            q, r = query[low : low + 65_536], rows[low : low + 65_536]
            states = self.states[torch.from_numpy(q)]
            parts.append((states * self.scorer.vectors[torch.from_numpy(r)]).sum(-1))
        return torch.cat(parts) if parts else torch.zeros(0)

    def price(self, query: Int64s, rows: Int64s) -> Tensor:
        """[K] the user's usual price times the item's."""
        return torch.from_numpy(self.usual_price[query] * self.scorer.standard_price[rows])


def _features_by_day(scorer: Scorer, now: Int64s, sample: Int64s) -> tuple[Tensor, Tensor]:
    """[U, N, G] features of the sampled items as of each day, and the place of each one's day [Q].

    A worker whose shards hold no question has no day either: [0, N, G].
    """
    days, day = scorer.days_of(now)
    features = np.empty((len(days), len(sample), scorer.item_features.shape[1]), dtype=np.float32)
    for place, each in enumerate(days):
        features[place] = scorer.features_on(each)[sample]
    return torch.from_numpy(features), torch.from_numpy(day)


def _is_in(values: Int64s, rising: Int64s) -> Bools:
    """Whether each value stands in a rising array."""
    if not len(rising):
        return np.zeros(values.shape, dtype=bool)
    found: Any = rising[np.minimum(np.searchsorted(rising, values), len(rising) - 1)] == values
    return found
