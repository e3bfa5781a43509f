"""The training objective: softmax over the catalogue, full or sampled with logQ correction.

Legend: S states, P targets, C candidates of the denominator, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def catalogue_cross_entropy(
    states_SD: Tensor,
    positives_PD: Tensor,
    candidates_CD: Tensor,
    *,
    target_states_P: Tensor,
    target_items_P: Tensor,
    candidate_items_C: Tensor,
    log_expected_C: Tensor,
    prior_P: Tensor,
    prior_C: Tensor,
    weights_P: Tensor,
    scale: Tensor | float,
) -> Tensor:
    """Weighted mean over targets of -log p(target | state), with p a softmax over the catalogue.

    The denominator is estimated from C candidates drawn with replacement; subtracting the log of
    the expected number of draws makes the estimate consistent (Bengio & Senecal 2008; Yi et al.
    2019). With `candidate_items_C` the whole catalogue and `log_expected_C` zero it is the full
    softmax. A candidate that is itself a target of the same state is left out: it is no negative.

    Args:
        states_SD: user states of length 1.
        positives_PD: vectors of the targets, of length 1.
        candidates_CD: vectors of the candidates, of length 1.
        target_states_P: the state of each target.
        target_items_P: catalogue rows of the targets.
        candidate_items_C: catalogue rows of the candidates.
        log_expected_C: log of the expected number of draws of each candidate.
        prior_P: the user-independent part of the targets' logits (log popularity), so that the
            vectors need only learn what is personal.
        prior_C: the same of the candidates.
        weights_P: loss weight of each target.
        scale: multiplies the cosines; one over the temperature.
    """
    used, state_of_target = torch.unique(target_states_P, return_inverse=True)
    logits_SC = states_SD[used] @ candidates_CD.T * scale + (prior_C - log_expected_C)
    # Not -inf: with every candidate left out the gradient would be NaN.
    logits_SC = logits_SC.masked_fill(
        _same_item(state_of_target, target_items_P, candidate_items_C, len(used)),
        torch.finfo(logits_SC.dtype).min,
    )
    log_rest_S = torch.logsumexp(logits_SC, dim=1)
    positive_P = (states_SD[target_states_P] * positives_PD).sum(-1) * scale + prior_P
    loss_P = torch.logaddexp(log_rest_S[state_of_target], positive_P) - positive_P
    return (loss_P * weights_P).sum() / weights_P.sum().clamp(min=1e-9)


def _same_item(
    state_of_target_P: Tensor, target_items_P: Tensor, candidate_items_C: Tensor, num_states: int
) -> Tensor:
    """[S, C] whether the candidate is a target of the state."""
    items, candidate_C = torch.unique(candidate_items_C, return_inverse=True)
    place_P = torch.searchsorted(items, target_items_P).clamp(max=len(items) - 1)
    present_P = items[place_P] == target_items_P
    hit = torch.zeros(num_states, len(items), dtype=torch.bool, device=target_items_P.device)
    hit[state_of_target_P[present_P], place_P[present_P]] = True
    return hit[:, candidate_C]
