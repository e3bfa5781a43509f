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

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from recsys.features.candidates import PAIR_FEATURES
from recsys.features.side_features import ITEM_FEATURES, is_recently_launched

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


def head_loss(head: ScoringHead, examples: HeadExamples, new_item_weight: float = 1.0) -> Tensor:
    """Sum over questions of the weighted mean over their relevant items of -log softmax(score).

    A question has two losses, which are summed: over the whole catalogue, and over the catalogue
    without the user's own items, which alone would decide the first.
    """
    e = examples

    def first_stage(cosine: Tensor, item: Tensor, price: Tensor) -> Tensor:
        return head.cosine * cosine + item + head.price * price

    pairs = first_stage(e.pair_cosine, head.item_scores(e.pair_item_features), e.pair_price)
    pairs = pairs + torch.cat([head.own(e.own_inputs), head.related(e.other_inputs)]).squeeze(-1)
    pos = first_stage(e.pos_cosine, head.item_scores(e.pos_item_features), e.pos_price)
    of_items = head.item_scores(e.sample_item_features)[e.day]
    sample = first_stage(e.sample_cosine, of_items, e.sample_price) + e.sample_offset

    # An own item is always a pair.
    num_own = len(e.own_inputs)
    listed = pairs - e.pair_log_kept
    query = torch.cat([e.pair_query[num_own:], e.pos_query])
    of_pairs = _segment_logsumexp(torch.cat([listed[num_own:], pos]), query, e.num_queries)
    of_others = torch.logaddexp(torch.logsumexp(sample, dim=1), of_pairs)
    of_own = _segment_logsumexp(listed[:num_own], e.pair_query[:num_own], e.num_queries)
    of_all = torch.logaddexp(of_others, of_own)

    def relevant(of_pair: Tensor, of_pos: Tensor) -> Tensor:
        return torch.cat([of_pair[e.pair_relevant], of_pos])

    gain, asked = relevant(pairs, pos), relevant(e.pair_query, e.pos_query)
    weight = 1 + (new_item_weight - 1) * is_recently_launched(
        relevant(e.pair_item_features, e.pos_item_features)
    )
    first_other = int(e.pair_relevant[:num_own].sum())

    def loss(log_total: Tensor, wanted: slice) -> Tensor:
        query, weights = asked[wanted], weight[wanted]
        per_question = torch.bincount(query, weights, minlength=e.num_queries)
        return ((log_total[query] - gain[wanted]) * weights / per_question[query]).sum()

    return loss(of_all, slice(None)) + loss(of_others, slice(first_other, None))


def _segment_logsumexp(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    """[num_segments] log of each segment's sum of exp(values); `LEFT_OUT` where it has none."""
    peak = torch.full((num_segments,), LEFT_OUT)
    peak = peak.scatter_reduce(0, segment, values.detach(), "amax")
    total = torch.zeros(num_segments).index_add(0, segment, torch.exp(values - peak[segment]))
    return torch.log(total.clamp(min=1e-30)) + peak


#: Sums a tensor over all workers, in place.
Reduce = Callable[[Tensor], None]


def fit_head(
    head: ScoringHead,
    *examples: HeadExamples,
    new_item_weight: float = 1.0,
    reduce: Reduce | None = None,
    num_steps: int = 200,
    penalty: float = 3e-3,
) -> float:
    """Fit the head in place by L-BFGS, from where it stands.

    The L2 penalty was chosen on validation: a lower one overfits with more steps, a higher one
    keeps new items low in the list.

    Each of several workers reads its own questions; loss and gradient are summed in every step, so
    that all take the same steps.

    Returns:
        The final mean loss of a question.
    """
    parameters = list(head.parameters())
    num_questions = torch.tensor([float(sum(each.num_queries for each in examples))])
    if reduce is not None:
        reduce(num_questions)
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=num_steps,
        history_size=10,
        line_search_fn="strong_wolfe",
        tolerance_change=1e-5,
    )
    final = 0.0

    def closure() -> Tensor:
        nonlocal final
        optimizer.zero_grad()
        losses = [head_loss(head, each, new_item_weight) for each in examples]
        loss = torch.stack(losses).sum(0) / num_questions
        loss.sum().backward()  # type: ignore[no-untyped-call]
        flat = torch.cat(
            [loss.detach(), *(p.grad.flatten() for p in parameters if p.grad is not None)]
        )
        if reduce is not None:
            reduce(flat)
        final = float(flat[0])
        start = 1
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad.copy_(flat[start : start + parameter.numel()].view_as(parameter))
            start += parameter.numel()
        networks = (head.own, head.related, head.item)
        decayed = [parameter for part in networks for parameter in part.parameters()]
        for parameter in decayed:
            assert parameter.grad is not None
            parameter.grad.add_(parameter.detach(), alpha=2 * penalty)
        squares = sum(float((p.detach() ** 2).sum()) for p in decayed)
        return flat[0] + penalty * squares

    optimizer.step(closure)  # type: ignore[no-untyped-call, arg-type]
    return final
