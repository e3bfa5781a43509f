"""ESMM's product, the links, and the bias of positions."""

from __future__ import annotations

import torch

from recsys.outcome_heads.heads import OUTCOMES, OutcomeHeads

torch.manual_seed(0)
HEADS = OutcomeHeads(5, 2, hidden=(8,), members=2).eval()
INPUTS = torch.randn(200, 5) * 3
HEADS.requires_grad_(False)


def test_a_cart_or_purchase_is_never_likelier_than_a_click() -> None:
    logs = HEADS(INPUTS).log_probabilities
    click = logs[:, OUTCOMES.index("click")]
    for name in ("cart", "purchase"):
        assert (logs[:, OUTCOMES.index(name)] <= click).all()


def test_the_product_is_that_of_the_two_factors() -> None:
    raw = HEADS.raw(INPUTS).mean(0)
    expected = raw[:, 0].sigmoid() * raw[:, 2].sigmoid()
    found = HEADS(INPUTS).log_probabilities[:, OUTCOMES.index("purchase")].exp()
    assert torch.allclose(found, expected, atol=1e-6)


def test_dwell_falls_with_the_threshold_and_its_median_is_its_middle() -> None:
    found = HEADS(INPUTS)
    above = torch.stack([found.dwell_above(t) for t in (0, 1, 5, 20, 100, 1_000)])
    assert (above.diff(dim=0) <= 0).all() and (above >= 0).all() and (above <= 1).all()
    middle = found.median_dwell_seconds()
    for row in range(5):
        assert abs(float(found.dwell_above(float(middle[row]))[row]) - 0.5) < 1e-3
    assert (found.dwell_seconds() > 0).all() and (found.value() > 0).all()


def test_an_unknown_place_has_no_bias() -> None:
    with torch.no_grad():
        HEADS.position.fill_(0.7)
    places = torch.tensor([1, 0, 1]), torch.tensor([3, 3, 0])
    assert torch.allclose(HEADS.bias(*places), torch.tensor([0.7, 0.7, 0.0]))
