"""The scoring head: the served score, from the encoders' cosine and the side features.

    score(user, item) = a * cosine + w . item_features + p * usual_price * price     (every item)
                      + mlp(pair_features, item_features, cosine, usual_price * price)    (pairs)

The first line, the first stage, is an inner product of a user part and an item part: one matrix
product scores the whole catalogue. The second line, the second stage, scores the few candidates of
a history (see `recsys.features.candidates`). It has one network for the user's own items and one
for all others. Both read the terms of the first stage too, so that popularity may weigh differently
for items that are new to the user.

Legend: Q queries, K (query, item) pairs, N sampled items, R relevant items, I items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from recsys.features.candidates import PAIR_FEATURES
from recsys.features.side_features import ITEM_FEATURES

#: The first pair features: those that only a user's own items have.
OF_OWN = PAIR_FEATURES[: PAIR_FEATURES.index("is_own") + 1]


def is_own(pair_features: Tensor) -> Tensor:
    """[K] whether the item of a pair is one of the user's own."""
    return pair_features[:, len(OF_OWN) - 1] > 0


def pair_inputs(
    pair_features: Tensor, item_features: Tensor, cosine: Tensor, price: Tensor
) -> Tensor:
    """[K, F + G + 2] inputs of the second stage; the network of others leaves out `OF_OWN`."""
    return torch.cat([pair_features, item_features, cosine[:, None], price[:, None]], dim=1)


def _network(width: int, hidden: int) -> nn.Sequential:
    """One hidden layer; outputs 0 until it is fitted."""
    last = nn.Linear(hidden, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), last)


class ScoringHead(nn.Module):
    """Weights of the score's parts; few enough to be fitted to convergence in seconds."""

    def __init__(self, temperature: float, hidden: int = 24) -> None:
        super().__init__()
        self.cosine = nn.Parameter(torch.tensor(1.0 / temperature))
        self.item = nn.Linear(len(ITEM_FEATURES), 1, bias=False)
        self.price = nn.Parameter(torch.tensor(0.0))
        width = len(PAIR_FEATURES) + len(ITEM_FEATURES) + 2
        self.own = _network(width, hidden)
        self.related = _network(width - len(OF_OWN), hidden)
        # Unfitted, the score is the cosine.
        nn.init.zeros_(self.item.weight)

    def item_scores(self, item_features: Tensor) -> Tensor:
        """[I] the user-independent part of the score."""
        return self.item(item_features).squeeze(-1)

    def pair_scores(
        self, pair_features: Tensor, item_features: Tensor, cosine: Tensor, price: Tensor
    ) -> Tensor:
        """[K] second-stage scores, added to those of the first.

        Args:
            pair_features: [K, F], see `candidates.make_pairs`.
            item_features: [K, G] of the pair's item.
            cosine: [K] of user state and item vector.
            price: [K] the user's usual price times the item's.
        """
        seen = pair_inputs(pair_features, item_features, cosine, price)
        own = is_own(pair_features)
        scores = seen.new_empty(len(seen))
        for network, picked, first in ((self.own, own, 0), (self.related, ~own, len(OF_OWN))):
            at = picked.nonzero().squeeze(-1)
            scores[at] = network(seen[:, first:].index_select(0, at)).squeeze(-1)
        return scores

    def user_part(self, states: Tensor, usual_price: Tensor) -> Tensor:
        """[Q, D + 2] the user's side of the inner product."""
        ones = torch.ones_like(usual_price)
        return torch.cat(
            [states * self.cosine, torch.stack([usual_price * self.price, ones], dim=1)], dim=1
        )

    def item_part(self, vectors: Tensor, item_features: Tensor, standard_price: Tensor) -> Tensor:
        """[I, D + 2] the item's side of the inner product."""
        return torch.cat(
            [vectors, standard_price[:, None], self.item_scores(item_features)[:, None]], dim=1
        )


@dataclass(frozen=True)
class HeadExamples:
    """Questions to fit the head on: everything that does not depend on its weights is computed.

    Pairs stand with all own items first, then all others. A price is the user's usual one times
    the item's.

    Attributes:
        num_queries: Q.
        own_inputs: [K', F + G + 2] of the own items' pairs, see `pair_inputs`.
        other_inputs: [K - K', ...] of the others, without `OF_OWN`.
        pair_query, pair_cosine, pair_price, pair_relevant: [K].
        pair_item_features: [K, G] of the pairs' items, as of each question's moment.
        pair_log_kept: [K] log of the probability that the pair was kept; 0 for a relevant one.
        pos_query, pos_cosine, pos_price: [R'] relevant items that are in no pair.
        pos_item_features: [R', G].
        sample_cosine, sample_price: [Q, N] of the items sampled for the denominator.
        sample_item_features: [U, N, G] as of each day that has a question.
        day: [Q] place of each question's day among the U.
        sample_offset: [Q, N] added to a sampled item's score: minus the log of its expected number
            of draws, or `LEFT_OUT` where it is in a pair or relevant and already counted.
    """

    num_queries: int
    own_inputs: Tensor
    other_inputs: Tensor
    pair_query: Tensor
    pair_cosine: Tensor
    pair_price: Tensor
    pair_relevant: Tensor
    pair_item_features: Tensor
    pair_log_kept: Tensor
    pos_query: Tensor
    pos_cosine: Tensor
    pos_price: Tensor
    pos_item_features: Tensor
    sample_cosine: Tensor
    sample_price: Tensor
    sample_item_features: Tensor
    day: Tensor
    sample_offset: Tensor

    @property
    def sample_left_out(self) -> Tensor:
        """[Q, N] bool: counted among the pairs or the relevant items."""
        return self.sample_offset == LEFT_OUT


#: Not -inf: the gradient of a user whose pairs hold every sampled item would be NaN.
LEFT_OUT: Final = torch.finfo(torch.float32).min
