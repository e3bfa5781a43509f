"""The head's loss against a softmax written out, and its fit by one worker and by two."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
import torch
from head_loss import head_loss
from scipy import sparse
from tiny_logs import BUY, VIEW, Event, queries

from recsys.data.histories import Histories
from recsys.data.time_split import Questions
from recsys.features.candidates import make_pairs
from recsys.features.item_to_item import Relations
from recsys.features.side_features import ITEM_FEATURES, is_recently_launched
from recsys.model.head_fit import Objective, fit_head
from recsys.model.ranking_head import HeadExamples, ScoringHead, is_own
from recsys.model.user_encoder import UserEncoder
from recsys.ranking.scorer import Scorer
from recsys.training.head_examples import HeadQuestions

NUM_ITEMS, DIM = 9, 4
GENERATOR = np.random.default_rng(0)
FEATURES = GENERATOR.standard_normal((NUM_ITEMS, len(ITEM_FEATURES))).astype(np.float32)
PRICES = GENERATOR.standard_normal(NUM_ITEMS).astype(np.float32)
VECTORS = torch.nn.functional.normalize(
    torch.from_numpy(GENERATOR.standard_normal((NUM_ITEMS, DIM)).astype(np.float32)), dim=-1
)
#: Few enough that some items are in nobody's pairs.
RELATIONS = Relations(
    *(
        sparse.csr_array(np.where(GENERATOR.random((NUM_ITEMS, NUM_ITEMS)) < 0.2, weights, 0))
        for weights in GENERATOR.random((3, NUM_ITEMS, NUM_ITEMS)).astype(np.float32)
    )
)
#: Never drawn from: no question has more pairs than are kept.
RNG = np.random.default_rng(2)
EVERYTHING = np.arange(NUM_ITEMS), np.zeros(NUM_ITEMS, dtype=np.float32)

#: Histories and what was bought next: own and new items, a new user, one who owns all there is.
ASKED: list[tuple[list[Event], list[int]]] = [
    ([(1, 0, BUY), (5, 1, VIEW), (5, 0, BUY)], [0, 3]),
    ([(2, 4, BUY)], [5]),
    ([], [2, 7]),
    ([(3, 6, BUY), (4, 8, VIEW)], [6]),
    ([(time, time, BUY) for time in range(NUM_ITEMS)], [1]),
]


def questions(asked: list[tuple[list[Event], list[int]]]) -> Questions:
    histories: Histories = queries(*(history for history, _ in asked))
    relevant = [item for _, items in asked for item in items]
    counts = np.array([len(items) for _, items in asked], dtype=np.int64)
    return Questions(
        np.arange(len(asked)), np.zeros(len(asked), dtype=np.int32),
        histories.item_rows, histories.event_codes, histories.timestamps,
        histories.offsets[:-1], histories.offsets[1:], histories.now,
        np.array(relevant, dtype=np.int32), np.concatenate([[0], np.cumsum(counts)]),
    )  # fmt: skip


def random_head(seed: int = 0) -> ScoringHead:
    torch.manual_seed(seed)
    head = ScoringHead(0.5)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head


def scorer(head: ScoringHead) -> Scorer:
    torch.manual_seed(0)
    users = UserEncoder(DIM, 1, 2, 0.0)
    return Scorer.build(users, head, VECTORS, FEATURES, PRICES, RELATIONS, [BUY], 16)


def examples(
    asked: list[tuple[list[Event], list[int]]],
    sample: tuple[np.ndarray, np.ndarray] = EVERYTHING,
) -> HeadExamples:
    mine = scorer(random_head())
    return HeadQuestions.of(mine, questions(asked), *sample, RNG).examples(mine)


def value(head: ScoringHead, made: HeadExamples, new_item_weight: float = 1.0) -> float:
    return float(Objective(made, new_item_weight).evaluate(head)[0])


def gradient(head: ScoringHead, made: HeadExamples) -> torch.Tensor:
    return Objective(made).evaluate(head)[1:]


def fit(head: ScoringHead, made: HeadExamples, **more: object) -> float:
    return fit_head(head, made, **more)  # type: ignore[arg-type]


def served_loss(head: ScoringHead, weights: np.ndarray) -> float:
    """Of every question's whole list and of its list without own items, by the served scores."""
    scores = torch.from_numpy(scorer(head).scores(questions(ASKED).histories))
    total = 0.0
    for number, (history, items) in enumerate(ASKED):
        own = {item for _, item, _ in history}
        for taken_out in (set(), own):
            listed = scores[number].clone()
            listed[list(taken_out)] = -torch.inf
            wanted = [item for item in items if item not in taken_out]
            if wanted:
                weight = torch.from_numpy(weights[wanted])
                log_share = torch.log_softmax(listed, dim=0)[wanted]
                total -= float((log_share * weight).sum() / weight.sum())
    return total


def test_the_loss_is_the_softmax_over_the_served_scores() -> None:
    """What the fit lowers is made of the very scores that are served."""
    head = random_head()
    expected = served_loss(head, np.ones(NUM_ITEMS))
    assert value(head, examples(ASKED)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("weight", [1.0, 5.0])
@pytest.mark.parametrize("asked", [ASKED, ASKED[-1:], ASKED[:1], []], ids=len)
def test_loss_and_gradient_in_closed_form_are_those_of_autograd(
    asked: list[tuple[list[Event], list[int]]], weight: float
) -> None:
    head, made = random_head(), examples(asked)
    expected = head_loss(head, made, weight)
    expected.backward()
    found = Objective(made, weight).evaluate(head)
    assert float(found[0]) == pytest.approx(float(expected.detach()), rel=1e-5, abs=1e-5)
    by_autograd = torch.cat([p.grad.flatten() for p in head.parameters() if p.grad is not None])
    torch.testing.assert_close(found[1:], by_autograd, atol=1e-5, rtol=1e-4)


def test_own_items_and_others_have_networks_of_their_own() -> None:
    head, histories = random_head(), questions(ASKED).histories
    pairs = make_pairs(histories, RELATIONS, VECTORS.numpy(), [BUY])
    own = is_own(torch.from_numpy(pairs.features)).numpy()
    is_his = histories.query_of_event * NUM_ITEMS + histories.item_rows
    np.testing.assert_array_equal(own, np.isin(pairs.query * NUM_ITEMS + pairs.item_rows, is_his))
    assert 0 < own.sum() < len(own)
    before = scorer(head).parts(histories)[1].extra
    with torch.no_grad():
        head.own[-1].bias += 1
    after = scorer(head).parts(histories)[1].extra
    np.testing.assert_allclose(after - before, own, atol=1e-5)


def test_a_sample_estimates_it() -> None:
    head, rng = random_head(), np.random.default_rng(1)
    share = np.full(NUM_ITEMS, 1 / NUM_ITEMS)
    rows = rng.choice(NUM_ITEMS, 60_000, p=share)
    sample = rows, np.log(len(rows) * share[rows]).astype(np.float32)
    full = value(head, examples(ASKED))
    assert value(head, examples(ASKED, sample)) == pytest.approx(full, rel=0.02)


def test_pairs_and_relevant_items_are_left_out_of_the_sample() -> None:
    made = examples(ASKED)
    pairs = make_pairs(questions(ASKED).histories, RELATIONS, VECTORS.numpy(), [BUY])
    for number, (_, items) in enumerate(ASKED):
        counted = set(pairs.item_rows[pairs.query == number].tolist()) | set(items)
        assert set(np.flatnonzero(made.sample_left_out[number]).tolist()) == counted


def test_a_fit_lowers_the_loss() -> None:
    head, made = random_head(), examples(ASKED)
    before = value(head, made) / len(ASKED)
    after = fit(head, made)
    assert after < before - 0.1
    assert after == pytest.approx(value(head, made) / len(ASKED), abs=0.01)
    assert all(parameter.isfinite().all() for parameter in head.parameters())


def test_who_owns_the_whole_sample_spoils_nothing() -> None:
    head, made = random_head(), examples(ASKED[-1:])
    assert made.sample_left_out.all()
    assert gradient(head, made).isfinite().all()


class TestTwoWorkers:
    def split(self) -> tuple[HeadExamples, list[HeadExamples]]:
        return examples(ASKED), [examples(ASKED[:3]), examples(ASKED[3:])]

    def test_the_gradients_of_two_shares_add_up(self) -> None:
        whole, shares = self.split()
        head = random_head()
        parts = torch.stack([gradient(head, share) for share in shares])
        torch.testing.assert_close(gradient(head, whole), parts.sum(dim=0), atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("empty_share", [False, True])
    def test_they_fit_what_one_would_fit_alone(self, empty_share: bool) -> None:
        whole, shares = self.split()
        if empty_share:
            shares = [whole, examples([])]
        alone = random_head()
        fit(alone, whole, num_steps=5)
        heads = [copy.deepcopy(random_head()) for _ in shares]
        barrier = threading.Barrier(len(shares))
        slots: list[torch.Tensor] = [torch.zeros(1)] * len(shares)

        def work(rank: int) -> None:
            def add_up(values: torch.Tensor) -> None:
                slots[rank] = values.clone()
                barrier.wait(30)
                total = torch.stack(slots).sum(0)
                barrier.wait(30)
                values.copy_(total)

            fit(heads[rank], shares[rank], reduce=add_up, num_steps=5)

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(shares))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for mine, other, wanted in zip(*(h.parameters() for h in [*heads, alone]), strict=True):
            assert torch.equal(mine, other)
            torch.testing.assert_close(mine, wanted, atol=1e-3, rtol=1e-2)


def test_young_items_weigh_more() -> None:
    """They weigh among a question's relevant items; a question with one item keeps its loss."""
    head, made = random_head(), examples(ASKED)
    young = is_recently_launched(FEATURES)
    assert len({bool(young[item]) for _, items in ASKED for item in items if len(items) > 1}) == 2
    expected = served_loss(head, np.where(young, 5.0, 1.0))
    assert value(head, made, 5.0) == pytest.approx(expected, rel=1e-4)


def test_examples_do_not_depend_on_the_heads_weights() -> None:
    first = examples(ASKED)
    other = scorer(random_head(7))
    second = HeadQuestions.of(other, questions(ASKED), *EVERYTHING, RNG).examples(other)
    for name, value in vars(first).items():
        other = getattr(second, name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
