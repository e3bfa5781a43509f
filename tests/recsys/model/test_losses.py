from __future__ import annotations

import pytest
import torch

from recsys.model.losses import catalogue_cross_entropy

NUM_ITEMS, DIM = 12, 6
TEMPERATURE = 0.2


def unit(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


ITEMS, STATES = unit(NUM_ITEMS, DIM, seed=1), unit(4, DIM, seed=2)
PRIOR = torch.linspace(-2, 0, NUM_ITEMS)


def loss(
    targets: list[tuple[int, int]],
    *,
    candidates: torch.Tensor | None = None,
    log_expected: torch.Tensor | None = None,
    weights: list[float] | None = None,
    items: torch.Tensor = ITEMS,
    states: torch.Tensor = STATES,
) -> torch.Tensor:
    """The loss of (state, item) targets; the whole catalogue as candidates by default."""
    rows = torch.arange(len(items)) if candidates is None else candidates
    state, item = torch.tensor(targets).T.contiguous()
    return catalogue_cross_entropy(
        states,
        items[item],
        items[rows],
        target_states_P=state,
        target_items_P=item,
        candidate_items_C=rows,
        log_expected_C=torch.zeros(len(rows)) if log_expected is None else log_expected,
        prior_P=PRIOR[item],
        prior_C=PRIOR[rows],
        weights_P=torch.ones(len(item)) if weights is None else torch.tensor(weights),
        scale=1 / TEMPERATURE,
    )


def logits() -> torch.Tensor:
    return STATES @ ITEMS.T / TEMPERATURE + PRIOR


ONE_EACH = [(0, 3), (1, 0), (3, 11)]


def test_over_the_whole_catalogue_it_is_cross_entropy() -> None:
    expected = torch.nn.functional.cross_entropy(logits()[[0, 1, 3]], torch.tensor([3, 0, 11]))
    torch.testing.assert_close(loss(ONE_EACH), expected)


def test_its_gradient_is_that_of_cross_entropy() -> None:
    ours, theirs = (ITEMS.clone().requires_grad_() for _ in range(2))
    loss(ONE_EACH, items=ours).backward()
    scores = STATES @ theirs.T / TEMPERATURE + PRIOR
    torch.nn.functional.cross_entropy(scores[[0, 1, 3]], torch.tensor([3, 0, 11])).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_mean_is_weighted() -> None:
    rows = torch.nn.functional.cross_entropy(
        logits()[[0, 1, 3]], torch.tensor([3, 0, 11]), reduction="none"
    )
    weights = [1.0, 0.0, 3.0]
    torch.testing.assert_close(loss(ONE_EACH, weights=weights), (rows[0] + 3 * rows[2]) / 4)
    assert loss(ONE_EACH, weights=[0.0, 0.0, 0.0]) == 0


def test_another_target_of_the_same_state_is_no_negative() -> None:
    scores = logits()[0]
    rest = torch.ones(NUM_ITEMS, dtype=torch.bool)
    rest[[3, 5]] = False
    expected = [
        torch.logsumexp(torch.cat([scores[rest], scores[item, None]]), 0) - scores[item]
        for item in (3, 5)
    ]
    torch.testing.assert_close(loss([(0, 3), (0, 5)]), torch.stack(expected).mean())


def test_a_target_among_the_candidates_counts_once() -> None:
    rows = torch.tensor([3, 7, 3, 9])
    expected_with = loss([(0, 3)], candidates=rows)
    expected_without = loss([(0, 3)], candidates=torch.tensor([7, 9]))
    torch.testing.assert_close(expected_with, expected_without)


def test_a_candidate_drawn_twice_counts_twice() -> None:
    twice = loss([(0, 3)], candidates=torch.tensor([7, 7]), log_expected=torch.full((2,), 0.7))
    once = loss(
        [(0, 3)], candidates=torch.tensor([7]), log_expected=torch.tensor([0.7]) - 0.6931472
    )
    torch.testing.assert_close(twice, once)


def test_draws_in_proportion_to_popularity_estimate_the_full_softmax() -> None:
    share = torch.softmax(torch.linspace(0, 2, NUM_ITEMS), 0)
    size, full = 200_000, loss(ONE_EACH)
    rows = torch.multinomial(share, size, True, generator=torch.Generator().manual_seed(0))
    sampled = loss(ONE_EACH, candidates=rows, log_expected=torch.log(size * share[rows]))
    torch.testing.assert_close(sampled, full, atol=0.01, rtol=0)
    uncorrected = loss(
        ONE_EACH, candidates=rows,
        log_expected=torch.full((size,), float(torch.log(torch.tensor(size / NUM_ITEMS)))),
    )  # fmt: skip
    assert (uncorrected - full).abs() > 0.02


@pytest.mark.parametrize("num_targets", [1, 3])
def test_with_every_candidate_left_out_there_is_nothing_to_learn(num_targets: int) -> None:
    items = ITEMS[:num_targets].clone().requires_grad_()
    value = loss([(0, item) for item in range(num_targets)], items=items)
    value.backward()
    assert value == 0
    assert items.grad is not None and (items.grad == 0).all()
