"""The scoring head's loss by autograd, which the fit computes in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.features.side_features import is_recently_launched
from recsys.model.ranking_head import LEFT_OUT, HeadExamples, ScoringHead


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
