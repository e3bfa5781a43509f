"""The fit of the scoring head: its loss and gradient in closed form, and L-BFGS.

Legend: Q questions, K (question, item) pairs, N sampled items, R relevant items, F inputs of a
network, H its hidden units.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from recsys.features.side_features import is_recently_launched
from recsys.model.ranking_head import HeadExamples, ScoringHead

#: Pairs computed together: their hidden units fit a processor's cache.
PAIRS_AT_ONCE = 16_384


class Objective:
    """The sum over questions of the head's two losses, and its gradient, without autograd.

    A question has two losses: the weighted mean over its relevant items of -log softmax(score),
    over the whole catalogue, and over the catalogue without the user's own items, which alone would
    decide the first. Each is the logarithm of a sum of exponentials less a fixed mean of scores, so
    that the gradient by a score is its share of the sums less a constant.

    Args:
        examples: to fit on.
        new_item_weight: weight of a relevant item that is new, see `is_recently_launched`.
    """

    def __init__(self, examples: HeadExamples, new_item_weight: float = 1.0) -> None:
        e = self.examples = examples
        num_own, num = len(e.own_inputs), e.num_queries
        relevant = e.pair_relevant.nonzero().squeeze(-1)
        query = torch.cat([e.pair_query[relevant], e.pos_query])
        features = torch.cat([e.pair_item_features[relevant], e.pos_item_features])
        weight = 1 + (new_item_weight - 1) * is_recently_launched(features).float()
        is_other = torch.arange(len(query)) >= int((relevant < num_own).sum())
        gain = torch.zeros(len(query))
        #: [Q] 1 where a question has this loss: of all items, of others than its own.
        self.asks = []
        for counted in (torch.ones_like(is_other), is_other):
            total = torch.zeros(num).index_add(0, query, weight * counted)
            gain += weight * counted / total.clamp(min=1e-30)[query]
            self.asks.append((total > 0).float())
        #: Each pair's, and each other relevant item's, part of the fixed means.
        self.pair_gain = torch.zeros(len(e.pair_query)).index_add(
            0, relevant, gain[: len(relevant)]
        )
        self.pos_gain = gain[len(relevant) :]
        self.parts = [
            _Pairs(e.own_inputs, e.pair_query[:num_own], slice(0, num_own)),
            _Pairs(e.other_inputs, e.pair_query[num_own:], slice(num_own, None)),
        ]
        self.sample_features = e.sample_item_features.flatten(0, 1)

    @torch.no_grad()
    def evaluate(self, head: ScoringHead) -> Tensor:
        """[1 + P] the loss, and its gradient by the head's parameters, one after another."""
        e, num_features = self.examples, head.item.in_features
        item = head.item.weight[0]
        linear = torch.cat([item, torch.stack([head.cosine, head.price])])
        scores = torch.cat(
            [
                part.scores(network, linear)
                for part, network in zip(self.parts, (head.own, head.related), strict=True)
            ]
        )
        listed = scores - e.pair_log_kept
        pos = e.pos_item_features @ item + head.cosine * e.pos_cosine + head.price * e.pos_price
        of_items = (self.sample_features @ item).view(e.sample_item_features.shape[:2])
        sample = of_items.index_select(0, e.day).add_(e.sample_offset)
        sample.addcmul_(e.sample_cosine, head.cosine).addcmul_(e.sample_price, head.price)

        # One peak for all sums of a question.
        own, other = self.parts
        peak = sample.amax(dim=1)
        for values, query in ((listed, e.pair_query), (pos, e.pos_query)):
            peak.scatter_reduce_(0, query, values, "amax")
        sample.sub_(peak[:, None]).exp_()
        listed.sub_(peak[e.pair_query]).exp_()
        pos_share = (pos - peak[e.pos_query]).exp_()
        of_others = sample.sum(dim=1).index_add_(0, other.query, listed[other.place])
        of_others.index_add_(0, e.pos_query, pos_share)
        of_all = of_others.index_add(0, own.query, listed[own.place])
        asks_all, asks_others = self.asks
        loss = (asks_all * (of_all.clamp(min=_TINY).log() + peak)).sum()
        loss += (asks_others * (of_others.clamp(min=_TINY).log() + peak)).sum()
        loss -= self.pair_gain @ scores + self.pos_gain @ pos

        by_own = asks_all / of_all.clamp(min=_TINY)
        by_other = by_own + asks_others / of_others.clamp(min=_TINY)
        listed[own.place] *= by_own[own.query]
        listed[other.place] *= by_other[other.query]
        listed -= self.pair_gain
        pos_share.mul_(by_other[e.pos_query]).sub_(self.pos_gain)
        sample.mul_(by_other[:, None])

        found = [
            part.gradient(network, listed[part.place])
            for part, network in zip(self.parts, (head.own, head.related), strict=True)
        ]
        by_linear = sum(of_linear for of_linear, _ in found)
        assert isinstance(by_linear, Tensor)
        by_item = torch.zeros_like(of_items).index_add_(0, e.day, sample)
        by_linear[:num_features] += by_item.flatten() @ self.sample_features
        by_linear[:num_features] += pos_share @ e.pos_item_features
        for nth, of_sample, of_pos in (
            (0, e.sample_cosine, e.pos_cosine),
            (1, e.sample_price, e.pos_price),
        ):
            by_linear[num_features + nth] += sample.flatten() @ of_sample.flatten()
            by_linear[num_features + nth] += pos_share @ of_pos
        by_name = {
            "item.weight": by_linear[:num_features],
            "cosine": by_linear[num_features],
            "price": by_linear[num_features + 1],
        }
        for name, (_, of_network) in zip(("own", "related"), found, strict=True):
            by_name |= {f"{name}.{key}": value for key, value in of_network.items()}
        return torch.cat(
            [loss[None], *(by_name[name].flatten() for name, _ in head.named_parameters())]
        )


#: Smallest sum that is divided by: a question without any item to compare with has none.
_TINY = 1e-30


class _Pairs:
    """The pairs that one network scores.

    Their inputs stand as columns too, with a row of ones for the biases: what is computed of the
    hidden units, and the gradient's product, then go along whole rows.

    Args:
        inputs: [K, F]; the last of them are the terms of the first stage.
        query: [K].
        place: of these pairs among all.
    """

    def __init__(self, inputs: Tensor, query: Tensor, place: slice) -> None:
        self.query, self.place, self._rows = query, place, inputs
        ones = torch.ones(1, len(inputs))
        columns = torch.cat([inputs.T, ones])
        self._parts = [part.contiguous() for part in torch.split(columns, PAIRS_AT_ONCE, dim=1)]
        self._hidden: list[Tensor] = []
        self._num_linear = 0

    def scores(self, network: nn.Sequential, linear: Tensor) -> Tensor:
        """[K] scores of the second stage and of the first, whose weights are `linear`."""
        first, last = _layers(network)
        self._num_linear = len(linear)
        # One product gives the hidden units and the first stage.
        weights = torch.zeros(first.out_features + 1, first.in_features + 1)
        weights[:-1, :-1], weights[:-1, -1] = first.weight, first.bias
        weights[-1, -1 - len(linear) : -1] = linear
        if not self._hidden:
            self._hidden = [torch.empty(len(weights), part.shape[1]) for part in self._parts]
        scores, outer = [], torch.cat([last.weight[0], last.bias])
        for inputs, hidden in zip(self._parts, self._hidden, strict=True):
            torch.mm(weights, inputs, out=hidden)
            of_first = hidden[-1].clone()
            hidden[:-1].tanh_()
            hidden[-1] = 1
            scores.append(of_first + outer @ hidden)
        return torch.cat(scores)

    def gradient(
        self, network: nn.Sequential, by_score: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The gradient by the weights of the first stage, and by the network's parameters.

        Args:
            network: the last one that `scores` was asked with.
            by_score: [K] the gradient by the scores.
        """
        first, last = _layers(network)
        by_outer, by_bias = torch.zeros(2, first.out_features + 1)
        by_weights = torch.zeros(first.out_features + 1, first.in_features)
        rows, scores = (torch.split(each, PAIRS_AT_ONCE) for each in (self._rows, by_score))
        for inputs, hidden, by in zip(rows, self._hidden, scores, strict=True):
            by_outer += hidden @ by
            # The derivative of tanh is 1 - tanh ** 2.
            hidden[:-1].square_().neg_().add_(1).mul_(by)
            hidden[-1] = by
            by_weights.addmm_(hidden, inputs)
            by_bias += hidden.sum(dim=1)
        by_weights[:-1] *= last.weight[0][:, None]
        return by_weights[-1, -self._num_linear :], {
            "0.weight": by_weights[:-1],
            "0.bias": by_bias[:-1] * last.weight[0],
            "2.weight": by_outer[:-1],
            "2.bias": by_outer[-1],
        }


def _layers(network: nn.Sequential) -> tuple[nn.Linear, nn.Linear]:
    first, last = network[0], network[-1]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    return first, last


#: Steps of a fit at most.
NUM_STEPS = 200
#: Sums a tensor over all workers, in place.
Reduce = Callable[[Tensor], None]


def fit_head(
    head: ScoringHead,
    *examples: HeadExamples,
    new_item_weight: float = 1.0,
    reduce: Reduce | None = None,
    num_steps: int = NUM_STEPS,
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
    objectives = [Objective(each, new_item_weight) for each in examples]
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
        found = torch.stack([objective.evaluate(head) for objective in objectives])
        flat = found.sum(0) / num_questions
        if reduce is not None:
            reduce(flat)
        final = float(flat[0])
        start = 1
        for parameter in parameters:
            parameter.grad = flat[start : start + parameter.numel()].view_as(parameter)
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
